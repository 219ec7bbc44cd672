// The table of peers.
import { find, make, text, show, list, attribute } from "./dom.js";
import { size, rate, span, short, millis } from "./text.js";

let by = "down", falls = true, peers = [];

const moods = { healthy: "good", connected: "", dialling: "", slow: "warn", probing: "warn", "backed off": "bad", banned: "bad" };

// pathOf shortens the relay's id, which stands in full in the cell's title.
const pathOf = p => (p.path ?? "").replace(/ via (\S+)$/, (_, id) => " via " + short(id));

// why says what is to be said of a peer's health beside its name.
function why(p, now) {
  const parts = [];
  if (p.until > now) parts.push("for " + span((p.until - now) / 1000));
  if (p.why) parts.push(p.why);
  if (p.failures > 1) parts.push(p.failures + " failures in a row");
  if (p.service) parts.push("treated as " + p.service);
  return parts.join(", ");
}

const keys = { path: pathOf, id: p => p.id, health: p => p.health };

function sorted() {
  const key = keys[by] ?? (p => p[by]);
  return [...peers].sort((a, b) => {
    if (a.connected !== b.connected) return a.connected ? -1 : 1;
    const x = key(a), y = key(b);
    const c = x < y ? -1 : x > y ? 1 : a.id < b.id ? -1 : 1;
    return falls ? -c : c;
  });
}

export function rows(state, now) {
  peers = state.list;
  text(find("peers-count"), peers.length + state.more ? String(peers.length + state.more) + (state.more ? `, ${peers.length} shown` : "") : "");
  show(find("peers-box"), peers.length > 0);
  show(find("no-peers"), peers.length === 0);
  again(now);
}

function again(now) {
  list(find("peer-rows"), sorted(), p => p.id,
    () => make("tr", {}, make("th", { scope: "row" }, make("span", { class: "mono" }), make("span", { class: "sub muted" })),
      make("td", {}, make("span"), make("span", { class: "sub" })),
      ...Array.from({ length: 5 }, () => make("td", { class: "num" })),
      make("td", {}, make("span", { class: "chip" }), make("span", { class: "sub" }))),
    (e, p) => {
      const c = e.children;
      e.className = p.connected ? "" : "away";
      attribute(c[0], "title", p.id);
      text(c[0].firstChild, short(p.id));
      text(c[1].firstChild, pathOf(p) || "not connected");
      text(c[1].lastChild, !p.connected ? "" : [p.inbound ? "they came" : "we dialled", p.data, words(p.protocol)].filter(Boolean).join(", "));
      attribute(c[1], "title", [p.path, p.remote].filter(Boolean).join(", "));
      text(c[2], p.down ? rate(p.down) : "–");
      text(c[3], p.up ? rate(p.up) : "–");
      text(c[4], size(p.received));
      text(c[5], size(p.sent));
      text(c[6], millis(p.rtt_ms));
      const chip = c[7].firstChild;
      chip.className = "chip " + (moods[p.health] ?? "");
      text(chip, p.health);
      text(c[7].lastChild, why(p, now()));
    });
}

const words = protocol => !protocol ? "" : protocol.includes("tensorswap") ? "TensorSwap" : protocol.includes("bitswap") ? "Bitswap" : protocol;

export function begin(now) {
  const heads = [...document.querySelectorAll("#peers-table th")];
  const mark = () => {
    for (const h of heads) {
      attribute(h, "aria-sort", h.firstElementChild.dataset.sort !== by ? "none" : falls ? "descending" : "ascending");
    }
  };
  for (const h of heads) {
    h.firstElementChild.addEventListener("click", e => {
      const key = e.currentTarget.dataset.sort;
      falls = key === by ? !falls : !["id", "path", "health"].includes(key);
      by = key;
      mark();
      again(now);
    });
  }
  mark();
}
