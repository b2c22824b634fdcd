"use strict";
// The two small drawings of a latent: its activations as a histogram, and its calibration.
(() => {
  const { make, draw, fixed, significant, whole, tabulate } = rewrite;
  const WIDTH = 420, HEIGHT = 230, LEFT = 52, RIGHT = 12, TOP = 12, BOTTOM = 44;
  const across = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
  const up = (share) => HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);

  // Round values from 0 to the most, five or so, as [share of the most, words].
  function round(most) {
    const rough = most / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find((times) => times * power >= rough * 0.999);
    const count = Math.floor((most / step) * 1.001);
    return Array.from({ length: count + 1 }, (_, i) => [(i * step) / most, significant(3)(i * step)]);
  }

  function label(x, y, text, anchor, more = {}) {
    return draw("text", { x, y, "text-anchor": anchor, ...more }, text);
  }

  // Marks along both axes ([share, words]), and what the axes are.
  function frame(marks, heights, below, beside) {
    const middle = (HEIGHT - BOTTOM + TOP) / 2;
    const line = (kind, y) => draw("line", { class: kind, x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y });
    return [
      ...heights.map(([share]) => line("grid", up(share))),
      line("axis", up(0)),
      ...heights.map(([share, words]) => label(LEFT - 6, up(share) + 4, words, "end")),
      ...marks.map(([share, words]) => label(across(share), HEIGHT - BOTTOM + 16, words, "middle")),
      label(across(0.5), HEIGHT - 6, below, "middle"),
      label(12, middle, beside, "middle", { transform: `rotate(-90 12 ${middle})` }),
    ];
  }

  function figure(title, told, parts, table, keys, caption) {
    return make("figure", {},
      draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${told}` }, ...parts),
      make("figcaption", {}, make("p", {}, ...keys), make("p", {}, make("strong", {}, `${title}. `), caption)),
      make("details", {}, make("summary", {}, "As text and as a table"), make("p", {}, told), table));
  }

  const key = (kind, words) => make("span", { class: "key" }, make("i", { class: kind }), words);

  // Positions by activation, true ones filled and simulated ones as an outline; heights are logarithmic.
  function histogram({ most, true: truth, simulated }) {
    const bins = truth.length;
    const log = Math.log10(Math.max(...truth, ...(simulated ?? []), 9) + 1);
    const high = (count) => Math.log10(count + 1) / log;
    const step = (count, i) => `L${across(i / bins)} ${up(high(count))}H${across((i + 1) / bins)}`;
    const outline = (counts) => `M${across(0)} ${up(0)}${counts.map(step).join("")}V${up(0)}`;
    const heights = [[0, "0"]];
    for (let count = 1; high(count) <= 1; count *= 10) heights.push([high(count), whole(count)]);
    const parts = frame(round(most || 1), heights, "activation", "positions");
    parts.push(draw("path", { class: "true", "fill-opacity": 0.75, d: outline(truth) }));
    if (simulated) parts.push(draw("path", { class: "simulated-line", d: outline(simulated) }));
    const sum = (counts) => whole(counts.reduce((a, b) => a + b, 0));
    const said = simulated ? `simulated to fire at ${sum(simulated)}` : "there is no simulation";
    const ends = (i) => `${significant(3)((i * most) / bins)} to ${significant(3)(((i + 1) * most) / bins)}`;
    const rows = truth.map((count, i) => [ends(i), whole(count), simulated ? whole(simulated[i]) : "–"]);
    return figure("Activations on the test split",
      `Truly active at ${sum(truth)} positions, ${said}; the most is ${significant(3)(most)}.`, parts,
      tabulate("histogram of activations", ["activation", "true", "simulated"], rows),
      [key("t", "true"), key("s", "simulated (dashed)")], "Positions above 0, on a logarithmic scale.");
  }

  // Mean true and mean predicted activation at each strength that the simulator said.
  function curve({ count, true: truth, predicted }) {
    const most = Math.max(...truth, ...predicted, 0) || 1;
    const last = count.length - 1;
    const place = (value, i) => value !== null && [across(i / last), up(value / most)];
    const known = (values) => values.map(place).filter((point) => point);
    const three = significant(3);
    const marks = count.map((_, i) => [i / last, String(i)]);
    const parts = frame(marks, round(most), "strength that the simulator said", "mean activation");
    const line = known(predicted).map(([x, y]) => `${x},${y}`).join(" ");
    parts.push(draw("polyline", { class: "simulated-line", points: line }));
    for (const [x, y] of known(predicted)) {
      parts.push(draw("rect", { class: "simulated", x: x - 3, y: y - 3, width: 6, height: 6 }));
    }
    for (const [x, y] of known(truth)) {
      parts.push(draw("circle", { class: "true", cx: x, cy: y, r: 4.5, "fill-opacity": 0.85 }));
    }
    const said = count.map((_, i) => `${i}: true ${three(truth[i])}, predicted ${three(predicted[i])}`);
    const told = said.filter((_, i) => count[i]).join("; ");
    const rows = count.map((number, i) => [String(i), whole(number), three(predicted[i]), three(truth[i])]);
    return figure("Calibration on the test split", `Mean activation by strength. ${told}.`, parts,
      tabulate("calibration of this latent", ["strength", "predictions", "predicted", "true"], rows),
      [key("t", "true (dots)"), key("s", "predicted (dashed)")], "What was true where a strength was said.");
  }

  rewrite.sketch = { histogram, curve, key };
})();
