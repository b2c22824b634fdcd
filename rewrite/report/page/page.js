"use strict";
// Common ground of the scripts: data files, elements, foreign text, numbers, the theme, printing.
// Whatever comes from a run is put into the page as text (`make` knows text nodes only), never as markup.
window.rewrite = (() => {
  const slots = new Map();

  function slot(name) {
    if (!slots.has(name)) {
      const own = { asked: false };
      own.promise = new Promise((resolve, reject) => Object.assign(own, { resolve, reject }));
      slots.set(name, own);
    }
    return slots.get(name);
  }

  // What every data file calls.
  function receive(name, value) {
    slot(name).resolve(value);
  }

  // The content of data/NAME.js. A page from disk may not fetch a file, but it may add a script.
  function load(name) {
    const own = slot(name);
    if (!own.asked) {
      own.asked = true;
      const script = document.createElement("script");
      const words = `data/${name}.js cannot be read: keep the folder “data” beside this page.`;
      const fail = () => own.reject(new Error(words));
      script.src = `data/${name}.js`;
      script.addEventListener("error", fail);
      script.addEventListener("load", fail); // After `receive` this does nothing.
      document.head.append(script);
    }
    return own.promise;
  }

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const draw = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const find = (id) => document.getElementById(id);

  // As `rewrite.display.escaping.visible`: a symbol for what is not seen or turns the direction of writing. Spaces stay.
  const UNSEEN = new RegExp(
    "[\\s\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-" +
      "\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\u2800\\u3164\\uffa0\\ufff9-\\ufffb\\ud800-\\udfff" +
      "\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}]", "gu");
  const NAMED = { " ": " ", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡" };
  function symbol(letter) {
    if (letter in NAMED) return NAMED[letter];
    const number = letter.codePointAt(0);
    if (number < 0x20) return String.fromCodePoint(0x2400 + number);
    return `⟨U+${number.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  }
  const visible = (text) => text.replace(UNSEEN, symbol);
  const cut = (text, limit) => {
    const letters = text.length > limit ? [...text.slice(0, 2 * limit)] : [];
    return letters.length > limit ? letters.slice(0, limit - 1).join("") + "…" : text;
  };

  // Numbers with the digits of the report's tables; what is not known is a dash.
  const known = (show) => (value) => (value === null || value === undefined ? "–" : show(value));
  const fixed = (digits) => known((value) => (Math.round(value * 10 ** digits) === 0 ? 0 : value).toFixed(digits));
  // Few digits of a number of any size, as Python writes %g.
  function few(value, digits) {
    const short = Number(value.toPrecision(digits)), size = Math.abs(short);
    if (size === 0 || (size >= 1e-4 && size < 1e6)) return String(short);
    const [head, power] = short.toExponential().split("e");
    return `${head}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  const significant = (digits) => known((value) => few(value, digits));
  const share = known((value) => `${few(100 * value, 3)}%`);
  const whole = known((value) => value.toLocaleString("en"));

  // A table that a reader opens under a drawing: a head and rows of texts, numbers to the right.
  function tabulate(label, head, rows) {
    const heads = head.map((name) => make("th", { scope: "col", class: "n" }, name));
    const lines = rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row", class: "n" }, first),
      ...rest.map((text) => make("td", { class: "n" }, text))));
    return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Table: ${label}` },
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
  }

  // --- the theme: what the reader chose, else what the system says ---------------------------------------------------
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const remember = (act) => {
    try {
      return act(localStorage);
    } catch {
      return null; // A browser may refuse pages from disk a memory.
    }
  };
  const chosen = remember((memory) => memory.getItem("rewrite-theme"));
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  root.classList.add("js");

  function setUp() {
    const button = find("theme");
    const tell = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember((memory) => memory.setItem("rewrite-theme", root.dataset.theme));
      tell();
    });
    system.addEventListener("change", tell);
    tell();
  }
  document.addEventListener("DOMContentLoaded", setUp);

  // On paper nothing can be opened: figures show their tables, and close them again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open]):not(#narrowing)")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });

  return { receive, load, make, draw, find, visible, cut, fixed, significant, share, whole, tabulate };
})();
