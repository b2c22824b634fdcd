"use strict";
// The table of all latents: read when a reader gets near it, sorted, filtered and searched.
(() => {
  const { Listing, load, make, find, visible, cut, fixed, share, listen } = rewrite;
  const LONGEST = 300;
  const COLUMNS = [
    { key: "latent", title: "latent" },
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
  let columns = null, texts = null, lower = null, listing = null, begun = null;

  // Read the table, then the explanations: rows stand there before their texts do.
  function begin() {
    begun ??= load("table").then((table) => {
      columns = table.columns;
      listing = new Listing(chooseColumns(), "simulation", chooseRows, drawRow);
      const [first, ...others] = listing.heads;
      find("all").tHead.rows[0].replaceChildren(first, make("th", { scope: "col" }, "explanation"), ...others);
      find("all").hidden = false;
      listing.update();
      load("texts").then((found) => {
        texts = found;
        listing.update(listing.page);
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
  function chooseColumns() {
    const told = (key) => columns[key] && (key !== "missing" || columns[key].some((value) => value));
    return COLUMNS.filter(({ key }) => told(key)).map((column) => {
      const values = columns[column.key];
      return { ...column, values, show: column.fine ? fixed(digits(values)) : column.show };
    });
  }

  function digits(values) {
    const sizes = values.filter((value) => value).map(Math.abs).sort((a, b) => a - b);
    const typical = sizes[Math.floor(sizes.length / 2)] ?? 1;
    return Math.min(Math.max(1 - Math.floor(Math.log10(typical)), 2), 9);
  }

  // A test of a row: whether it is within all bounds that are set, and what is searched for.
  function chooseRows() {
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
    if (texts) found.push(listing.search(() => (lower ??= texts.map((text) => visible(text ?? "").toLowerCase()))));
    return (row) => found.every((test) => test(row));
  }

  function drawRow(row) {
    const [first, ...others] = listing.drawNumbers(row);
    const text = texts ? visible(cut(texts[row] ?? "none", LONGEST)) : "…";
    return make("tr", {}, first, make("td", { class: "prose" }, make("span", {}, text)), ...others);
  }

  // --- moving about --------------------------------------------------------------------------------------------------

  const links = () => [...find("all").tBodies[0].querySelectorAll("a")];

  // The row so many further on, on the next page where this one ends; the first row where none is chosen.
  function move(step) {
    const own = links(), at = own.indexOf(document.activeElement);
    if (at < 0) return own[0]?.focus();
    if (own[at + step]) return own[at + step].focus();
    const page = listing.page + step;
    if (page < 0 || page > listing.last) return undefined;
    listing.show(page);
    return links().at(step > 0 ? 0 : -1).focus();
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
    const row = listing.rowOf.get(number), at = listing.order.indexOf(row);
    const [before, after] = at < 0 ? [row - 1, row + 1] : [listing.order[at - 1], listing.order[at + 1]];
    return { before: columns.latent[before], after: columns.latent[after] };
  }

  // Show the row of a latent that was open, and go to it.
  function returnTo(number) {
    listing?.seek(listing.rowOf.get(number));
    links().find((link) => link.hash === `#latent=${number}`)?.focus({ preventScroll: true });
  }

  // --- a link to what the table shows --------------------------------------------------------------------------------
  // `#table=` and what differs from the start: what is searched for, every bound, the column that sorts and which way.
  const PREFIX = "#table=";
  const fields = () => [...document.querySelectorAll("#search, #lost, #filters [data-key]")];
  const nameOf = ({ id, dataset }) => (dataset.key ? `${dataset.key}.${dataset.end}` : id);

  function describe() {
    const told = fields().filter(({ value }) => value).map((field) => [nameOf(field), field.value]);
    return PREFIX + new URLSearchParams([...told, ["sort", listing.key], ["down", listing.down ? "1" : "0"]]);
  }

  // Some browsers let no page from disk reach the clipboard; the link stands in the address bar in any.
  async function giveLink() {
    await begin();
    history.replaceState(null, "", describe());
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    find("linked").textContent = copied ? "Copied." : "The link is in the address bar.";
  }

  async function followLink() {
    if (!location.hash.startsWith(PREFIX)) return;
    await begin();
    const told = new URLSearchParams(location.hash.slice(PREFIX.length));
    for (const field of fields()) field.value = told.get(nameOf(field)) ?? "";
    find("narrowing").open = fields().some(({ id, value }) => id !== "search" && value);
    if (listing.columns.some(({ key }) => key === told.get("sort"))) listing.key = told.get("sort");
    listing.down = told.get("down") !== "0";
    listing.update();
    find("latents").scrollIntoView();
  }

  find("link").addEventListener("click", () => giveLink().catch(() => {}));
  addEventListener("hashchange", () => followLink().catch(() => {}));
  followLink().catch(() => {});

  listen(() => begin().then(() => listing.update()).catch(() => {}));
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

  rewrite.table = { begin, neighbours, returnTo, row: (number) => listing.rowOf.get(number) };
})();
