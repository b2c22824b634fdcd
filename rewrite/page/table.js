"use strict";
// The table of all latents: read when a reader gets near it, sorted, filtered and searched, 50 rows at a time.
(() => {
  const { load, make, find, visible, cut, fixed, share, whole } = rewrite;
  const ROWS = 50, LONGEST = 300;
  const COLUMNS = [
    { key: "latent", title: "latent", show: String },
    { key: "simulation", title: "correlation", show: fixed(3) },
    { key: "r2", title: "R²", show: fixed(3) },
    { key: "detection", title: "detection", show: fixed(2) },
    { key: "fuzz", title: "fuzz", show: fixed(2) },
    { key: "cost", title: "cost [nats]", fine: true },
    { key: "density", title: "active", show: share },
    { key: "false", title: "false a token", fine: true },
    { key: "missed", title: "missed a token", fine: true },
    { key: "missing", title: "missing", show: share },
  ];
  const state = { key: "simulation", down: true, page: 0, order: [], texts: null, lower: null };
  let columns = null, shown = null, begun = null;

  // Read the table, then the explanations: rows stand there before their texts do.
  function begin() {
    begun ??= load("table").then((table) => {
      columns = table.columns;
      state.rowOf = new Map(columns.latent.map((number, row) => [number, row]));
      shown = choose();
      drawHead();
      find("all").hidden = false;
      update();
      load("texts").then((texts) => {
        state.texts = texts;
        update(state.page);
      }).catch(complain);
      return table;
    });
    begun.catch(complain);
    return begun;
  }

  function complain(error) {
    find("count").textContent = error.message;
  }

  // The columns that this run has. Fine ones get as many digits as give a typical latent two that say something.
  function choose() {
    const told = (key) => columns[key] && (key !== "missing" || columns[key].some((value) => value));
    const there = COLUMNS.filter(({ key }) => told(key));
    return there.map((column) => (column.fine ? { ...column, show: fixed(digits(columns[column.key])) } : column));
  }

  function digits(values) {
    const sizes = values.filter((value) => value).map(Math.abs).sort((a, b) => a - b);
    const typical = sizes[Math.floor(sizes.length / 2)] ?? 1;
    return Math.min(Math.max(1 - Math.floor(Math.log10(typical)), 2), 9);
  }

  function drawHead() {
    const cells = shown.map(({ key, title }) => {
      const button = make("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        state.down = state.key === key ? !state.down : key !== "latent";
        state.key = key;
        update();
      });
      return make("th", { scope: "col", class: "n", "data-key": key }, button);
    });
    cells.splice(1, 0, make("th", { scope: "col" }, "explanation"));
    find("all").tHead.rows[0].replaceChildren(...cells);
  }

  // --- which rows, in which order ------------------------------------------------------------------------------------

  function tests() {
    const found = [];
    for (const input of document.querySelectorAll("#filters [data-key]")) {
      const { key, end } = input.dataset;
      const bound = input.valueAsNumber / (key === "density" ? 100 : 1);
      const values = columns[key];
      if (Number.isFinite(bound) && values) {
        found.push((row) => values[row] !== null && (end === "low" ? values[row] >= bound : values[row] <= bound));
      }
    }
    const lost = find("lost").value;
    if (lost) found.push((row) => columns.missing[row] > 0 === (lost === "some"));
    const query = visible(find("search").value.trim()).toLowerCase();
    if (query && state.texts) {
      state.lower ??= state.texts.map((text) => visible(text ?? "").toLowerCase());
      const number = /^\d+$/.test(query) ? Number(query) : null;
      found.push((row) => state.lower[row].includes(query) || columns.latent[row] === number);
    }
    return found;
  }

  // What is not known stands last, whichever way the rest is sorted.
  function sort(rows) {
    const values = columns[state.key], sign = state.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  function update(page = 0) {
    const wanted = tests();
    const rows = [...columns.latent.keys()].filter((row) => wanted.every((test) => test(row)));
    state.order = sort(rows);
    showPage(page);
  }

  // --- the rows ------------------------------------------------------------------------------------------------------

  function drawRow(row) {
    const number = columns.latent[row];
    const cells = shown.map(({ key, show }) => make("td", { class: "n" }, show(columns[key][row])));
    cells[0] = make("th", { scope: "row", class: "n" }, make("a", { href: `#latent=${number}` }, String(number)));
    const text = state.texts ? visible(cut(state.texts[row] ?? "none", LONGEST)) : "…";
    cells.splice(1, 0, make("td", { class: "prose" }, make("span", {}, text)));
    return make("tr", {}, ...cells);
  }

  function showPage(page) {
    const last = Math.max(Math.ceil(state.order.length / ROWS) - 1, 0);
    state.page = Math.min(Math.max(page, 0), last);
    const from = state.page * ROWS, rows = state.order.slice(from, from + ROWS);
    find("all").tBodies[0].replaceChildren(...rows.map(drawRow));
    for (const head of find("all").tHead.querySelectorAll("[data-key]")) {
      if (head.dataset.key === state.key) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const all = whole(columns.latent.length), found = whole(state.order.length);
    const of = state.order.length === columns.latent.length ? `${all} latents` : `${found} found, of ${all} latents`;
    const shownRows = `${whole(from + 1)} to ${whole(from + rows.length)} of ${of}`;
    find("count").textContent = rows.length ? shownRows : `None of ${all} latents`;
    find("before").disabled = state.page === 0;
    find("after").disabled = state.page === last;
  }

  // --- moving about --------------------------------------------------------------------------------------------------

  const links = () => [...find("all").tBodies[0].querySelectorAll("a")];

  // The row so many further on, on the next page where this one ends; the first row where none is chosen.
  function move(step) {
    const own = links(), at = own.indexOf(document.activeElement);
    if (at < 0) return own[0]?.focus();
    if (own[at + step]) return own[at + step].focus();
    const page = state.page + step;
    if (page < 0 || page * ROWS >= state.order.length) return undefined;
    showPage(page);
    return links().at(step > 0 ? 0 : -1).focus();
  }

  function turn(step) {
    showPage(state.page + step);
    find("latents-title").scrollIntoView();
  }

  function press(event) {
    const typing = event.target.closest?.("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || find("report").hidden) return;
    const inRows = find("all").tBodies[0].contains(document.activeElement);
    const steps = { j: 1, k: -1, ...(inRows ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
    if (event.key === "/") {
      event.preventDefault();
      find("search").focus();
    } else if (event.key in steps) {
      event.preventDefault();
      begin().then(() => move(steps[event.key])).catch(() => {});
    }
  }

  // The latents beside one in the order of the table; in the run's order where the table does not show it.
  async function neighbours(number) {
    await begin();
    const row = state.rowOf.get(number), at = state.order.indexOf(row);
    const [before, after] = at < 0 ? [row - 1, row + 1] : [state.order[at - 1], state.order[at + 1]];
    return { before: columns.latent[before], after: columns.latent[after] };
  }

  // Show the row of a latent that was open, and go to it.
  function returnTo(number) {
    const at = state.order.indexOf(state.rowOf?.get(number));
    if (at >= 0 && Math.floor(at / ROWS) !== state.page) showPage(Math.floor(at / ROWS));
    links().find((link) => link.hash === `#latent=${number}`)?.focus({ preventScroll: true });
  }

  let waiting = 0;
  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(() => begin().then(() => update()).catch(() => {}), 120);
  }
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("input", soon);
  find("filters").addEventListener("reset", soon);
  find("before").addEventListener("click", () => turn(-1));
  find("after").addEventListener("click", () => turn(1));
  find("all").tBodies[0].addEventListener("click", (event) => {
    if (!event.target.closest("a") && !String(getSelection())) event.target.closest("tr")?.querySelector("a")?.click();
  });
  document.addEventListener("keydown", press);
  new IntersectionObserver((seen, observer) => {
    if (seen.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      begin().catch(() => {});
    }
  }, { rootMargin: "800px" }).observe(find("latents"));

  rewrite.table = { begin, neighbours, returnTo, row: (number) => state.rowOf.get(number) };
})();
