"use strict";
// A latent's page, at #latent=123: a link that can be kept, sent and gone back from.
(() => {
  const { load, make, find, visible, fixed, significant, share, whole, table, sketch, windows } = rewrite;
  const SCORES = [
    ["simulation", "correlation", fixed(3)],
    ["r2", "R²", fixed(3)],
    ["detection", "detection score", fixed(2)],
    ["fuzz", "fuzz score", fixed(2)],
    ["cost", "cost [nats]", significant(2)],
    ["q", "q of its cost", significant(2)],
    ["alone", "cost alone [nats]", significant(2)],
    ["density", "active", share],
    ["maximum", "maximum", significant(3)],
    ["precision", "precision", fixed(3)],
    ["recall", "recall", fixed(3)],
    ["false", "false firings a token", significant(2)],
    ["missed", "missed firings a token", significant(2)],
    ["missing", "missing predictions", share],
  ];
  const FIRINGS = {
    positions: "positions simulated", true: "true firings", hits: "of these simulated", false: "false firings",
  };
  const title = document.title;
  const section = find("latent"), report = find("report");
  let scrolled = null, open = null;

  // The clauses of an explanation in the pattern grammar, `Fires on "x" (9); "y" after "z" (3).`; null for any other.
  function splitRules(text) {
    const found = [], clause = /((?:"(?:[^"\\]|\\.)*"|[^"])*?) \((\d)\)(?:; |\.$)/y;
    const begin = "Fires on ";
    if (!text.startsWith(begin)) return null;
    for (clause.lastIndex = begin.length; clause.lastIndex < text.length; ) {
      const part = clause.exec(text);
      if (!part) return null;
      found.push({ text: part[1], strength: Number(part[2]) });
    }
    return found;
  }

  function drawRules(text) {
    const rules = splitRules(text);
    if (!rules) return [];
    const items = rules.map((rule) => {
      const bar = make("i");
      bar.style.width = `${(100 * rule.strength) / 9}%`;
      return make("li", {}, make("b", {}, String(rule.strength)), bar, make("span", {}, visible(rule.text)));
    });
    const told = "The strength, from 0 to 9, that each says. Of several that match, the one that says most about the " +
      "current word decides (a whole word before a token, its begin or end), then the one with most conditions on what " +
      "stands before it, then the strongest.";
    return [make("h2", {}, "Its rules"), make("p", {}, told), make("ol", { class: "rules" }, ...items)];
  }

  function drawText(text, page) {
    const parts = text === null || text === undefined
      ? [make("p", { class: "explanation none" }, "It has no explanation.")]
      : [make("p", { class: "explanation" }, visible(text)), ...drawRules(text)];
    if (page.why) {
      parts.push(make("p", { class: "cautions" }, make("strong", {}, "No predictions. "), visible(page.why)));
    }
    if (page.answer) {
      parts.push(make("details", {}, make("summary", {}, "The model's whole answer"),
        make("div", { class: "answer" }, ...page.answer.split("\n").flatMap((line) => [visible(line), make("br")]))));
    }
    return parts;
  }

  function drawScores(columns, row, page) {
    const judged = page.scores ?? {}; // In words, with their intervals.
    const lines = SCORES.filter(([key]) => columns[key])
      .map(([key, name, show]) => [name, judged[key] ?? show(columns[key][row])]);
    for (const [name, count] of Object.entries(page.firings ?? {})) lines.push([FIRINGS[name] ?? name, whole(count)]);
    if (page.readers) lines.push(["heads that read it", page.readers]);
    const items = lines.map(([name, words]) => [make("dt", {}, visible(name)), make("dd", {}, visible(words))]);
    const list = make("dl", { class: "scores" }, ...items.map((pair) => make("div", {}, ...pair)));
    return [make("h2", {}, "Its scores"), list];
  }

  function drawLegend() {
    const { key } = sketch;
    const keys = [key("t", "true"), key("s", "simulated"), key("m", "prediction missing, or not known")];
    const told = "Windows of the test split, which nothing was fitted on. Over each token stand two bars: its true " +
      "activation, and under that the simulated one.";
    const signs = make("span", {}, "· a space, ⏎ a line break, ⇥ a tab");
    return [make("h2", {}, "Held-out text"), make("p", {}, told),
      make("p", { class: "about" }, make("span", {}, ...keys), signs)];
  }

  // All that is known of a latent; null where the run has none of this number.
  async function drawLatent(number) {
    const all = await table.begin();
    const row = table.row(number);
    if (row === undefined) return null;
    const [pages, texts, words] = await Promise.all([
      load(`latents-${Math.floor(row / all.latents)}`), load("texts"), load("tokens"),
    ]);
    const page = pages[row % all.latents];
    const sketches = [sketch.histogram(page.histogram)];
    if (page.curve.count.some((count) => count)) sketches.push(sketch.curve(page.curve));
    return [
      ...drawText(texts[row], page),
      ...drawScores(all.columns, row, page),
      make("div", { class: "sketches" }, ...sketches),
      ...drawLegend(),
      ...windows.draw(page, all.documents, words),
    ];
  }

  async function drawWalk(number) {
    const { before, after } = await table.neighbours(number);
    const keys = [make("kbd", {}, "j"), " ", make("kbd", {}, "k"), " move, ", make("kbd", {}, "Esc"), " goes back"];
    const links = [];
    if (before !== undefined) links.push(drawLink(`#latent=${before}`, `Previous (${before})`, "k"));
    if (after !== undefined) links.push(drawLink(`#latent=${after}`, `Next (${after})`, "j"));
    return [...links, make("span", { class: "keys" }, ...keys)];
  }

  // A link that a key follows too.
  function drawLink(href, words, key) {
    return make("a", { href, "data-key": key, "aria-keyshortcuts": key }, words);
  }

  function drawHead(name) {
    return make("h1", { id: "latent-title", tabindex: "-1" }, name);
  }

  // What the address names, put in place at once and filled when its files are there.
  async function show(name) {
    if (open === null) scrolled = scrollY;
    open = name;
    const number = /^\d{1,9}$/.test(name) ? Number(name) : null;
    const head = drawHead(`Latent ${visible(name)}`);
    section.replaceChildren(head, make("p", { role: "status" }, "Loading …"));
    report.hidden = true;
    section.hidden = false;
    document.title = `Latent ${visible(name)} – ${title}`;
    scrollTo(0, 0);
    head.focus({ preventScroll: true });
    const walk = make("p", { class: "walk" }, drawLink("#latents", "← All latents", "Escape"));
    let parts = [make("p", {}, `There is no latent “${visible(name)}” in this run.`)];
    try {
      if (number !== null) {
        parts = (await drawLatent(number)) ?? parts;
        walk.append(...(await drawWalk(number)));
      }
    } catch (error) {
      parts = [make("p", { class: "cautions" }, visible(error.message))];
    }
    if (open !== name) return; // The reader went on while it was loading.
    section.replaceChildren(walk, head, ...parts);
    head.focus({ preventScroll: true });
  }

  // The report again, where the reader was.
  function close() {
    if (open === null) return;
    const number = Number(open);
    open = null;
    section.hidden = true;
    section.replaceChildren();
    report.hidden = false;
    document.title = title;
    const place = location.hash === "#latents" && scrolled === 0 ? null : scrolled;
    if (location.hash && location.hash !== "#latents") find(decode(location.hash.slice(1)))?.scrollIntoView();
    else if (place === null) find("latents").scrollIntoView();
    else scrollTo(0, place);
    table.returnTo(number);
  }

  function decode(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function follow() {
    const found = /^#latent=(.*)$/s.exec(location.hash);
    if (found) show(decode(found[1]));
    else close();
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (open === null || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const link = [...section.querySelectorAll(".walk a")].find((own) => own.dataset.key === event.key);
    if (link) {
      event.preventDefault();
      link.click();
    }
  });
  addEventListener("hashchange", follow);
  follow();
})();
