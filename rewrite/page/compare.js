"use strict";
// The latents of runs that share a coder, side by side: sorted, searched, 50 rows at a time; a row opens in full.
(() => {
  const { make, find, visible, cut, fixed, significant, whole } = rewrite;
  const ROWS = 50, NAME = 30;
  const data = JSON.parse(find("data").textContent);
  const names = data.runs.map((name) => cut(visible(name), NAME));
  const COLUMNS = [
    { title: "latent", values: data.latents },
    { title: "difference", values: data.differences, show: fixed(3), size: Math.abs },
    ...names.map((name, run) => ({ title: `score, ${name}`, values: data.scores[run], show: fixed(3) })),
    ...names.map((name, run) => ({ title: `cost, ${name}`, values: data.costs[run], show: significant(2) })),
  ];
  const rowOf = new Map(data.latents.map((number, row) => [number, row]));
  const lower = data.latents.map((_, row) => data.texts.map((texts) => visible(texts[row] ?? "").toLowerCase()).join("\n"));
  const state = { column: 1, down: true, page: 0, order: [], open: null };

  function drawHead() {
    const cells = COLUMNS.map(({ title }, column) => {
      const button = make("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        state.down = state.column === column ? !state.down : column !== 0;
        state.column = column;
        update();
      });
      return make("th", { scope: "col", class: "n" }, button);
    });
    const says = names.map((name) => make("th", { scope: "col" }, `explanation, ${name}`));
    find("all").tHead.rows[0].replaceChildren(...cells, ...says);
  }

  // What is not known stands last, whichever way the rest is sorted.
  function sort(rows) {
    const { values, size = Number } = COLUMNS[state.column], sign = state.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (size(x) - size(y)) || a - b;
    });
  }

  function update(page = 0) {
    const query = visible(find("search").value.trim()).toLowerCase();
    const number = /^\d+$/.test(query) ? Number(query) : null;
    const rows = [...data.latents.keys()];
    state.order = sort(rows.filter((row) => lower[row].includes(query) || data.latents[row] === number));
    showPage(page);
  }

  // --- the rows ------------------------------------------------------------------------------------------------------

  function drawRow(row) {
    const number = data.latents[row], isOpen = row === state.open;
    const cells = COLUMNS.map(({ values, show }) => make("td", { class: "n" }, show ? show(values[row]) : ""));
    const link = make("a", { href: `#latent=${number}`, "aria-expanded": String(isOpen) }, String(number));
    cells[0] = make("th", { scope: "row", class: "n" }, link);
    const says = data.texts.map((texts) => make("td", { class: "prose" }, make("span", {}, visible(texts[row] ?? "none"))));
    const drawn = make("tr", { "data-latent": number }, ...cells, ...says);
    return isOpen ? [drawn, drawOpen(row)] : [drawn];
  }

  function drawOpen(row) {
    const number = data.latents[row];
    const sides = data.runs.map((name, run) => {
      const text = data.texts[run][row];
      const numbers = `score ${fixed(3)(data.scores[run][row])}, cost ${significant(2)(data.costs[run][row])} nats`;
      const about = make("p", { class: "about" }, make("span", {}, numbers));
      if (data.reports[run]) about.append(make("a", { href: `${data.reports[run]}#latent=${number}` }, `Latent ${number} in its report`));
      const said = make("p", { class: text ? "explanation" : "explanation none" }, visible(text ?? "No explanation."));
      return make("div", {}, make("h3", {}, visible(name)), about, said);
    });
    const cell = make("td", { colspan: COLUMNS.length + names.length }, make("div", { class: "sides" }, ...sides));
    return make("tr", { class: "opened" }, cell);
  }

  function showPage(page) {
    const last = Math.max(Math.ceil(state.order.length / ROWS) - 1, 0);
    state.page = Math.min(Math.max(page, 0), last);
    const from = state.page * ROWS, rows = state.order.slice(from, from + ROWS);
    find("all").tBodies[0].replaceChildren(...rows.flatMap(drawRow));
    [...find("all").tHead.rows[0].cells].forEach((head, column) => {
      if (column === state.column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const all = whole(data.latents.length), found = whole(state.order.length);
    const of = state.order.length === data.latents.length ? `${all} latents` : `${found} found, of ${all} latents`;
    find("count").textContent = rows.length ? `${whole(from + 1)} to ${whole(from + rows.length)} of ${of}` : `None of ${all} latents`;
    find("before").disabled = state.page === 0;
    find("after").disabled = state.page === last;
  }

  function turn(step) {
    showPage(state.page + step);
    find("latents-title").scrollIntoView();
  }

  // --- one latent, opened --------------------------------------------------------------------------------------------

  const linkTo = (number) => find("all").querySelector(`tr[data-latent="${number}"] a`);

  function follow() {
    const wanted = /^#latent=(\d+)$/.exec(location.hash);
    const row = wanted ? rowOf.get(Number(wanted[1])) : undefined;
    state.open = row ?? null;
    if (row !== undefined && !state.order.includes(row)) {
      find("search").value = "";
      update();
    }
    showPage(row === undefined ? state.page : Math.floor(state.order.indexOf(row) / ROWS));
    if (row !== undefined) {
      linkTo(data.latents[row]).focus({ preventScroll: true });
      linkTo(data.latents[row]).scrollIntoView({ block: "center" });
    } else if (wanted) {
      find("count").textContent = `There is no latent ${wanted[1]} here.`;
      find("latents-title").scrollIntoView();
    }
  }

  function close(number) {
    history.pushState(null, "", "#latents");
    state.open = null;
    showPage(state.page);
    linkTo(number).focus({ preventScroll: true });
  }

  find("all").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-latent]"), link = event.target.closest("a");
    if (!row || String(getSelection())) return;
    if (rowOf.get(Number(row.dataset.latent)) === state.open) {
      event.preventDefault();
      close(row.dataset.latent);
    } else if (!link) {
      location.hash = `#latent=${row.dataset.latent}`;
    }
  });
  let waiting = 0;
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  find("before").addEventListener("click", () => turn(-1));
  find("after").addEventListener("click", () => turn(1));
  addEventListener("hashchange", follow);
  drawHead();
  update();
  if (location.hash.startsWith("#latent=")) follow();
})();
