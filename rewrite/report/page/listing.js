"use strict";
// A table of latents, the report's and that of `rewrite compare`: sorted, searched, 50 rows at a time. Its frame is the
// page's: the form `filters` with the field `search`, `count` for words, the table `all`, buttons `before` and `after`.
(() => {
  const { make, find, visible, whole } = rewrite;
  const ROWS = 50;

  class Listing {
    page = 0;
    order = []; // The rows that are wanted, in the order in which they are shown.
    down = true;

    // `columns` are {key, title, values, show}, the latents' numbers first; one with a `size` is sorted by that of its
    // values. `key` names the column that sorts at first, `choose` makes the test of which rows are wanted now, and
    // `draw` the elements of a row.
    constructor(columns, key, choose, draw) {
      Object.assign(this, { columns, key, choose, draw, numbers: columns[0].values });
      this.rowOf = new Map(this.numbers.map((number, row) => [number, row]));
      this.heads = columns.map((column) => this.drawHead(column));
      find("before").addEventListener("click", () => this.turn(-1));
      find("after").addEventListener("click", () => this.turn(1));
    }

    drawHead({ key, title }) {
      const button = make("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        this.down = this.key === key ? !this.down : key !== this.columns[0].key;
        this.key = key;
        this.update();
      });
      return make("th", { scope: "col", class: "n", "data-key": key }, button);
    }

    // What is not known stands last, whichever way the rest is sorted.
    sort(rows) {
      const { values, size = Number } = this.columns.find(({ key }) => key === this.key), sign = this.down ? -1 : 1;
      return rows.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (size(x) - size(y)) || a - b;
      });
    }

    // A test of rows for what is in the search field: part of a row's words or its number. `spell` gives all words in
    // small letters, once something is searched for.
    search(spell) {
      const query = visible(find("search").value.trim()).toLowerCase();
      if (!query) return () => true;
      const number = /^\d+$/.test(query) ? Number(query) : null, words = spell();
      return (row) => words[row].includes(query) || this.numbers[row] === number;
    }

    // Choose and sort anew.
    update(page = 0) {
      this.order = this.sort([...this.numbers.keys()].filter(this.choose()));
      this.show(page);
    }

    // A latent's number as a link to it, and its other numbers.
    drawNumbers(row, attributes = {}) {
      const number = this.numbers[row];
      const link = make("a", { href: `#latent=${number}`, ...attributes }, String(number));
      const cells = this.columns.slice(1).map(({ values, show }) => make("td", { class: "n" }, show(values[row])));
      return [make("th", { scope: "row", class: "n" }, link), ...cells];
    }

    get last() {
      return Math.max(Math.ceil(this.order.length / ROWS) - 1, 0);
    }

    show(page) {
      this.page = Math.min(Math.max(page, 0), this.last);
      const from = this.page * ROWS, rows = this.order.slice(from, from + ROWS);
      find("all").tBodies[0].replaceChildren(...rows.flatMap(this.draw));
      for (const head of this.heads) {
        if (head.dataset.key === this.key) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      this.count(from, rows.length);
      find("before").disabled = this.page === 0;
      find("after").disabled = this.page === this.last;
    }

    count(from, shown) {
      const all = whole(this.numbers.length), found = whole(this.order.length);
      const of = this.order.length === this.numbers.length ? `${all} latents` : `${found} found, of ${all} latents`;
      const words = shown ? `${whole(from + 1)} to ${whole(from + shown)} of ${of}` : `None of ${all} latents`;
      find("count").textContent = words;
    }

    turn(step) {
      this.show(this.page + step);
      find("latents-title").scrollIntoView();
    }

    // Show the page that has a row; where no page has it, it stays as it is.
    seek(row) {
      const at = this.order.indexOf(row), page = Math.floor(at / ROWS);
      if (at >= 0 && page !== this.page) this.show(page);
    }
  }

  // Act once a reader who asks for other rows pauses.
  function listen(act) {
    let waiting = 0;
    const soon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(act, 120);
    };
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("filters").addEventListener("input", soon);
    find("filters").addEventListener("reset", soon);
  }

  Object.assign(rewrite, { Listing, listen });
})();
