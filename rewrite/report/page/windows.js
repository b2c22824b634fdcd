"use strict";
// Windows of text in which a latent's true and simulated activations stand one above the other, on the same tokens.
(() => {
  const { make, visible, significant } = rewrite;
  const GROUPS = [
    ["false", "False firings", "The simulation fires, and the latent does not. Worst first."],
    ["missed", "Missed firings", "The latent fires, and the simulation does not. Worst first."],
    ["right", "Right firings", "Both fire. Strongest first."],
    ["train", "What its explainer could see", "Where it fires most in the train split; nothing is simulated there."],
  ];

  // Thousandths below which a simulation is at rest.
  const RESTING = 10;
  // Stands where nothing was simulated; where a prediction is missing there is null.
  const NOT_SIMULATED = -1;

  // A token's text: spaces as dots, all else that is not seen as its symbol.
  function spell(token) {
    const parts = visible(token).split(/( +)/).filter((part) => part);
    return parts.map((part) => (part.startsWith(" ") ? make("i", { class: "space" }, "·".repeat(part.length)) : part));
  }

  // One thousandth is anything above 0 that is not two: no more is known of it than what it is below.
  function value(thousandths, top) {
    const words = (count) => significant(3)((count * top) / 1000);
    return thousandths === 1 ? `below ${words(2)}` : words(thousandths);
  }

  function tell(window, at, top) {
    const truth = window.true[at] === null ? "true not known" : `true ${value(window.true[at], top)}`;
    if (!window.simulated) return truth;
    const simulated = window.simulated[at];
    if (simulated === NOT_SIMULATED) return `${truth}, not simulated`;
    return `${truth}, simulated ${simulated === null ? "missing" : value(simulated, top)}`;
  }

  // A bar of so many thousandths, at least `least` percent high if it has any height.
  function bar(tag, thousandths, least) {
    if (thousandths === null) return make(tag, { class: "hatch" });
    const element = make(tag);
    if (thousandths === NOT_SIMULATED) element.style.visibility = "hidden";
    else if (thousandths) element.style.setProperty("--high", `${Math.max(thousandths / 10, least)}%`);
    return element;
  }

  function drawToken(window, at, text, top) {
    const { true: truth, simulated } = window;
    // Any true firing is seen; a simulation at rest is seldom exactly 0, and is not.
    const parts = [bar("b", truth[at], 6)];
    if (simulated) parts.push(bar("u", simulated[at], 0));
    parts.push(make("span", {}, ...spell(text)));
    // Read aloud where there is something to say; at tokens without a word both are at rest.
    if (truth[at] || simulated?.[at] >= RESTING || simulated?.[at] === null) {
      parts.push(make("span", { class: "unseen" }, ` (${tell(window, at, top)}) `));
    }
    const kind = `token${simulated ? "" : " single"}${at === window.at ? " peak" : ""}`;
    return make("span", { class: kind, tabindex: at === window.at ? "0" : "-1" }, ...parts);
  }

  // One window: where it is, the numbers of the token that is pointed at, and the text. One token is in the tab order,
  // the arrow keys go on from there.
  function drawWindow(window, documents, words, top) {
    const tokens = window.tokens.map((index, at) => drawToken(window, at, words[index], top));
    const output = make("output");
    const point = (at) => {
      output.textContent = `“${visible(words[window.tokens[at]]).replaceAll(" ", "·")}” ${tell(window, at, top)}`;
    };
    const text = make("div", { class: "text", role: "group", "aria-label": "Text with activations" });
    tokens.forEach((token, at) => {
      text.append(token);
      if (words[window.tokens[at]].includes("\n")) text.append(make("br"));
    });
    const seek = (event) => tokens.indexOf(event.target.closest(".token"));
    text.addEventListener("pointerover", (event) => seek(event) >= 0 && point(seek(event)));
    text.addEventListener("focusin", (event) => point(seek(event)));
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = tokens[seek(event) + step];
      if (!next) return;
      event.preventDefault();
      event.target.closest(".token").tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    point(window.at);
    const name = window.document === null ? null : visible(String(documents[window.document]));
    const where = name === null ? "train split" : `test document ${name}`;
    return make("li", { class: window.kind }, make("p", { class: "about" }, make("span", {}, where), output), text);
  }

  // All windows by kind, under headings.
  function draw(page, documents, words) {
    const parts = [];
    for (const [kind, title, told] of GROUPS) {
      const own = page.windows.filter((window) => window.kind === kind);
      parts.push(make("h2", {}, title));
      parts.push(make("p", {}, own.length ? told : "None."));
      if (own.length) {
        const items = own.map((window) => drawWindow(window, documents, words, page.top));
        parts.push(make("ol", { class: "windows" }, ...items));
      }
    }
    return parts;
  }

  rewrite.windows = { draw };
})();
