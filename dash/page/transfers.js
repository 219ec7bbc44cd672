// Transfers: a card for each that runs, a row for each that ended.
import { make, text, show, list, part, attribute } from "./dom.js";
import { size, rate, span, percent, plural, short, last, tidy } from "./text.js";
import * as pieces from "./pieces.js";

// Every peer has a colour and a pattern, for as long as the page is open.
const seen = new Map();
export function series(peer) {
  if (!seen.has(peer)) seen.set(peer, seen.size % 8);
  return seen.get(peer);
}

export const title = t => t.name || (t.path && last(t.path)) || (t.root && short(t.root)) || plural(1, "transfer");

const classOf = g => g.kind === "peer" ? "p" + series(g.peer) : g.kind === "origin" ? "p" + series("origin " + g.name) : g.kind;

const giverOf = g => ({
  peer: () => short(g.peer), here: () => "here before", shared: () => "by another transfer here", origin: () => "origin " + g.name,
})[g.kind]();

const givers = gifts => gifts.filter(g => g.bytes > 0 || g.duplicates > 0);

export function running(parent, transfers, open) {
  list(parent, transfers, t => t.id, t => build(t, open), update);
}

function build(t, open) {
  const id = "transfer-" + t.id;
  const button = make("button", { type: "button", class: "quiet small", "aria-expanded": "false", "aria-controls": id + "-detail", "data-part": "open" }, "Pieces and peers");
  const card = make("article", { class: "card transfer", id, "aria-labelledby": id + "-title", tabindex: "-1" },
    make("header", {},
      make("h3", { id: id + "-title", "data-part": "title" }),
      make("span", { class: "chip tag", "data-part": "who" }),
      make("span", { class: "percent", "data-part": "percent" })),
    make("p", { class: "where mono", "data-part": "where" }),
    make("div", { class: "bar", role: "progressbar", "aria-labelledby": id + "-title", "aria-valuemin": "0", "aria-valuemax": "100", "data-part": "bar" }),
    make("ul", { class: "sources", "aria-label": "Where it comes from", "data-part": "sources" }),
    make("p", { class: "numbers", "data-part": "numbers" }),
    make("p", { class: "why", "data-part": "why", hidden: true }),
    make("p", { class: "more" }, button),
    make("div", { class: "detail", id: id + "-detail", "data-part": "detail", hidden: true }));
  button.addEventListener("click", () => {
    const detail = part(card, "detail"), opens = detail.hidden;
    show(detail, opens);
    button.setAttribute("aria-expanded", String(opens));
    open(t.id, opens ? detail : null);
  });
  return card;
}

// number appends "label value" to a line of numbers.
const number = (value, label) => make("span", {}, make("b", {}, value), " " + label);

function update(card, t) {
  text(part(card, "title"), title(t));
  const who = part(card, "who");
  text(who, t.who || t.kind);
  text(part(card, "where"), t.path || t.root || "");
  const bar = part(card, "bar"), whole = t.total || t.done;
  text(part(card, "percent"), t.known ? percent(t.done, t.total) : "");
  show(bar, t.total > 0);
  if (t.known) attribute(bar, "aria-valuenow", String(Math.floor(t.total > 0 ? 100 * t.done / t.total : 0)));
  attribute(bar, "aria-valuetext", `${size(t.done)} of ${t.known ? size(t.total) : "an unknown size"}, ${rate(t.rate)}`);
  const gifts = givers(t.gifts);
  list(bar, gifts, g => g.kind + g.peer + g.name, g => make("span", { class: classOf(g) }), (e, g) => {
    e.style.width = 100 * g.bytes / Math.max(whole, 1) + "%";
  });
  list(part(card, "sources"), gifts, g => g.kind + g.peer + g.name,
    g => make("li", { title: g.peer ?? "" }, make("span", { class: "swatch " + classOf(g), "aria-hidden": "true" }), make("span")),
    (e, g) => text(e.lastChild, `${giverOf(g)} ${size(g.bytes)}` + (g.rate >= 1 && (g.peer || g.kind === "origin") ? `, ${rate(g.rate)}` : "")
      + (g.duplicates > 0 ? `, and ${size(g.duplicates)} that had come already` : "")));
  const numbers = part(card, "numbers");
  const parts = [number(size(t.done), t.known ? "of " + size(t.total) : "so far"), number(rate(t.rate), "")];
  if (t.left !== null && t.left !== undefined) parts.push(number(span(t.left), "left"));
  if (t.duplicates > 0) parts.push(number(size(t.duplicates), "came twice"));
  const line = parts.map(p => p.textContent).join();
  if (numbers.textContent !== line) numbers.replaceChildren(...parts);
  const why = part(card, "why");
  show(why, !!t.stalled);
  if (t.stalled) text(why, tidy(t.why));
}

// detail shows the pieces of one transfer and who gives what now.
export function detail(box, d) {
  if (!box.firstChild) {
    const name = "mode-" + d.id;
    const radio = (value, label, checked) => make("label", {}, make("input", { type: "radio", name, value, checked }), " " + label);
    box.append(
      make("div", { class: "head" },
        make("h4", {}, "Pieces"),
        make("div", { class: "filters", role: "group", "aria-label": "What the map shows" },
          radio("givers", "who gave", true), radio("copies", "copies among peers"))),
      make("canvas", { role: "img", "data-part": "map" }),
      make("p", { class: "muted", "data-part": "words" }),
      make("ul", { class: "keys", "data-part": "keys" }),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Who gives what now" },
        make("table", {},
          make("caption", { class: "hidden" }, "Who gives what now"),
          make("thead", {}, make("tr", {}, ...["Peer", "Gave", "Speed", "Asked for", "Silent", "Round trip", "State"].map((h, i) =>
            make("th", { scope: "col", class: i > 0 && i < 6 ? "num" : undefined }, h)))),
          make("tbody", { "data-part": "givers" }))));
    box.addEventListener("change", () => again(box));
  }
  box.shown = d;
  again(box);
  list(part(box, "givers"), d.givers, g => g.peer,
    () => make("tr", {}, make("th", { scope: "row", class: "mono" }), ...Array.from({ length: 5 }, () => make("td", { class: "num" })), make("td")),
    (e, g) => {
      const c = e.children;
      attribute(c[0], "title", g.peer);
      text(c[0], short(g.peer));
      text(c[1], size(g.delivered));
      text(c[2], g.rate > 0 ? rate(g.rate) : "–");
      text(c[3], g.asked ? `${plural(g.asked, "block")}, ${size(g.bytes)}` : "nothing");
      text(c[4], g.asked && g.silent > 1 ? span(g.silent) : "–");
      text(c[5], g.rtt_ms > 0 ? g.rtt_ms.toFixed(1) + " ms" : "–");
      text(c[6], g.denied ? "does not accept the ticket" : g.lacks ? "lacks what is missing" : g.health);
    });
}

function again(box) {
  const d = box.shown, mode = box.querySelector("input:checked").value, canvas = part(box, "map");
  show(canvas, d.cells.length > 0);
  const words = d.cells.length ? pieces.tell(d) : "What this gets has no map of pieces.";
  text(part(box, "words"), words);
  attribute(canvas, "aria-label", words);
  pieces.draw(canvas, d, mode, series);
  const keys = mode === "copies" ? [["p2", "more copies, more colour"], ["missing", "not told"]] : [
    ...givers(d.gifts).map(g => [classOf(g), giverOf(g)]), ["asked", "on its way, in the colour of who was asked"], ["missing", "missing"]];
  list(part(box, "keys"), keys, k => k.join(), k => make("li", {}, make("span", { class: "swatch " + k[0], "aria-hidden": "true" }), k[1]), () => {});
}

export function redraw() {
  for (const box of document.querySelectorAll(".detail:not([hidden])")) if (box.shown) again(box);
}

export function ended(parent, transfers) {
  list(parent, transfers, t => t.id,
    () => make("tr", {}, make("th", { scope: "row", class: "wrap" }), make("td"), make("td", { class: "num" }), make("td", { class: "num" }),
      make("td", { class: "wrap" }), make("td", { class: "wrap" })),
    (e, t) => {
      const c = e.children;
      text(c[0], title(t));
      attribute(c[0], "title", t.path || t.root || "");
      text(c[1], t.who || t.kind);
      text(c[2], size(t.done));
      text(c[3], span((t.ended - t.began) / 1000));
      text(c[4], givers(t.gifts).map(g => `${giverOf(g)} ${size(g.bytes)}`).join(", ") || "–");
      text(c[5], t.error ? `${t.state}: ${tidy(t.error)}` : t.state);
      attribute(c[5], "title", t.error ?? "");
    });
}
