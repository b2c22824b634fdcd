"use strict";
// The latents of runs that share a coder, side by side: sorted, searched, 50 rows at a time; a row opens in full.
(() => {
  const { Listing, make, find, visible, cut, fixed, significant, listen } = rewrite;
  const NAME = 30;
  const data = JSON.parse(find("data").textContent);
  const names = data.runs.map((name) => cut(visible(name), NAME));
  const score = fixed(3), cost = significant(2);
  const each = (word, values, show) =>
    names.map((name, run) => ({ key: `${word}-${run}`, title: `${word}, ${name}`, values: values[run], show }));
  const COLUMNS = [
    { key: "latent", title: "latent", values: data.latents },
    { key: "difference", title: "difference", values: data.differences, show: score, size: Math.abs },
    ...each("score", data.scores, score),
    ...each("cost", data.costs, cost),
  ];
  const said = (row) => data.texts.map((texts) => texts[row]);
  const lower = data.latents.map((_, row) => said(row).map((text) => visible(text ?? "").toLowerCase()).join("\n"));
  const listing = new Listing(COLUMNS, "difference", () => listing.search(() => lower), drawRow);
  let open = null;

  function drawRow(row) {
    const isOpen = row === open;
    const numbers = listing.drawNumbers(row, { "aria-expanded": String(isOpen) });
    const says = said(row).map((text) => make("td", { class: "prose" }, make("span", {}, visible(text ?? "none"))));
    const drawn = make("tr", { "data-latent": data.latents[row] }, ...numbers, ...says);
    return isOpen ? [drawn, drawOpen(row)] : [drawn];
  }

  function drawOpen(row) {
    const number = data.latents[row];
    const sides = data.runs.map((name, run) => {
      const text = data.texts[run][row];
      const numbers = `score ${score(data.scores[run][row])}, cost ${cost(data.costs[run][row])} nats`;
      const about = make("p", { class: "about" }, make("span", {}, numbers));
      const href = `${data.reports[run]}#latent=${number}`;
      if (data.reports[run]) about.append(make("a", { href }, `Latent ${number} in its report`));
      const words = make("p", { class: text ? "explanation" : "explanation none" }, visible(text ?? "No explanation."));
      return make("div", {}, make("h3", {}, visible(name)), about, words);
    });
    const cell = make("td", { colspan: COLUMNS.length + names.length }, make("div", { class: "sides" }, ...sides));
    return make("tr", { class: "opened" }, cell);
  }

  // --- one latent, opened --------------------------------------------------------------------------------------------

  const linkTo = (row) => find("all").querySelector(`tr[data-latent="${data.latents[row]}"] a`);

  function follow() {
    const wanted = /^#latent=(\d+)$/.exec(location.hash);
    open = (wanted && listing.rowOf.get(Number(wanted[1]))) ?? null;
    if (open !== null && !listing.order.includes(open)) {
      find("search").value = "";
      listing.update();
    }
    listing.show(listing.page);
    if (open !== null) {
      listing.seek(open);
      linkTo(open).focus({ preventScroll: true });
      linkTo(open).scrollIntoView({ block: "center" });
    } else if (wanted) {
      find("count").textContent = `There is no latent ${wanted[1]} here.`;
      find("latents-title").scrollIntoView();
    }
  }

  function close(row) {
    history.pushState(null, "", "#latents");
    open = null;
    listing.show(listing.page);
    linkTo(row).focus({ preventScroll: true });
  }

  find("all").tBodies[0].addEventListener("click", (event) => {
    const drawn = event.target.closest("tr[data-latent]"), link = event.target.closest("a");
    if (!drawn || String(getSelection())) return;
    const row = listing.rowOf.get(Number(drawn.dataset.latent));
    if (row === open) {
      event.preventDefault();
      close(row);
    } else if (!link) {
      location.hash = `#latent=${drawn.dataset.latent}`;
    }
  });
  addEventListener("hashchange", follow);
  const says = names.map((name) => make("th", { scope: "col" }, `explanation, ${name}`));
  find("all").tHead.rows[0].replaceChildren(...listing.heads, ...says);
  listing.update();
  listen(() => listing.update());
  if (location.hash.startsWith("#latent=")) follow();
})();
