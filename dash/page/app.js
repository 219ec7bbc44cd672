// The page: takes the news as they come and puts each section where it belongs.
import { find, make, text, show, list, attribute } from "./dom.js";
import { size, rate, span, plural, short, clock, percent, tidy } from "./text.js";
import { listen } from "./live.js";
import { Chart } from "./chart.js";
import * as transfers from "./transfers.js";
import * as peers from "./peers.js";

const chart = new Chart(find("chart"));
let node = null, runningNow = [], endedNow = [], events = [], ahead = 0; // ahead is the daemon's clock before this one's
const now = () => Date.now() + ahead;
const seconds = () => Math.floor(now() / 1000);

// What is said aloud is little: what began, stalled or ended, not more often than every few seconds.
const sayEvery = 5000;
let toSay = [], saidAt = 0, sayTimer = 0;
function say(line) {
  toSay.push(line);
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => {
    saidAt = Date.now();
    text(find("say"), toSay.length > 3 ? `${toSay.length} things happened, the last: ${toSay.at(-1)}` : toSay.join(". "));
    toSay = [];
  }, Math.max(200, saidAt + sayEvery - Date.now()));
}

const mood = { healthy: "good", degraded: "warn", unhealthy: "bad", failed: "bad" };
const chip = (e, state, label) => { e.className = "chip " + (mood[state] ?? ""); text(e, label ?? state); };

function showNode(n) {
  node = n;
  const health = n.network !== "whole" ? "network " + n.network : n.health === "unknown" ? "starting" : n.health;
  chip(find("health"), n.network !== "whole" ? "unhealthy" : n.health, health);
  text(find("self"), n.peer || "offline");
  document.title = "Dray " + short(n.peer);
  list(find("addrs"), n.addrs, a => a, a => make("li", {}, a), () => {});
  list(find("parts"), n.parts, p => p.name, () => make("li", {}, make("span", { class: "chip" }), " ", make("span")), (e, p) => {
    chip(e.firstChild, p.health);
    text(e.lastChild, p.reason ? `${p.name}: ${p.reason}` : p.name);
  });
  text(find("version"), n.version);
  text(find("f-up-sub"), "since " + new Date(n.since).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
  const limit = (bytes, held) => bytes > 0 ? `limit ${rate(bytes)}${held ? ", reached" : ""}` : "no limit";
  text(find("f-in-sub"), limit(n.limits.down, n.limits.held_down));
  text(find("f-out-sub"), limit(n.limits.up, n.limits.held_up));
}

function showRunning(r) {
  const before = new Map(runningNow.map(t => [t.id, t]));
  runningNow = r.list;
  for (const t of runningNow) {
    if (t.stalled && !before.get(t.id)?.stalled) say(`${transfers.title(t)} is stalled: ${tidy(t.why)}`);
  }
  transfers.running(find("running"), runningNow, openDetail);
  show(find("no-transfers"), runningNow.length === 0);
  const all = runningNow.length + r.more;
  text(find("transfers-count"), all ? all + (r.more ? `, ${runningNow.length} shown` : "") : "");
  text(find("f-transfers"), String(all));
  const stalled = runningNow.filter(t => t.stalled);
  text(find("f-transfers-sub"), stalled.length ? plural(stalled.length, "stall") : all ? "all moving" : "none now");
  show(find("stalls"), stalled.length > 0);
  list(find("stall-list"), stalled, t => t.id,
    t => make("li", {}, make("a", { href: "#transfer-" + t.id }), make("span")),
    (e, t) => {
      text(e.firstChild, transfers.title(t));
      text(e.lastChild, ": " + tidy(t.why));
    });
}

function showEnded(e) {
  endedNow = e;
  transfers.ended(find("ended"), e);
  show(find("ended-box"), e.length > 0);
  text(find("ended-count"), String(e.length));
}

function showPeers(p) {
  peers.rows(p, now);
  const up = p.list.filter(x => x.connected), ill = up.filter(x => x.health !== "healthy" && x.health !== "connected").length;
  text(find("f-peers"), String(up.length + p.more));
  const relayed = up.filter(x => x.relayed).length;
  text(find("f-peers-sub"), ill ? plural(ill, "peer") + " in trouble" : up.length ? (relayed ? `${relayed} relayed` : "all direct") : "none connected");
}

function showStore(s) {
  const box = find("store-box");
  if (s.error) {
    box.replaceChildren(make("p", { class: "muted" }, "The store cannot be looked at: " + s.error));
    return;
  }
  const used = s.own + s.referenced;
  const facts = [
    ["Own copies", size(s.own) + (s.quota ? ` of ${size(s.quota)} (${percent(s.own, s.quota)})` : ", no quota")],
    ["In your files", size(s.referenced)], ["Roots", String(s.roots)],
  ];
  if (s.disk) facts.push(["Free on the disk", `${size(s.free)} of ${size(s.disk)}`]);
  const lines = facts.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]);
  const hint = used === 0 ? [make("p", { class: "muted" }, "Nothing is kept yet. ", make("code", {}, "dray share ./model"), " serves files where they lie.")] : [];
  box.replaceChildren(make("dl", { class: "facts" }, ...lines), ...hint);
}

function showCaches(caches) {
  show(find("caches-box"), caches.length > 0);
  list(find("caches"), caches, c => c.name, () => make("tr", {}, make("th", { scope: "row" }), ...Array.from({ length: 3 }, () => make("td", { class: "num" }))),
    (e, c) => {
      text(e.children[0], c.name);
      text(e.children[1], size(c.bytes));
      text(e.children[2], size(c.max));
      text(e.children[3], percent(c.hits, c.hits + c.misses) || "–");
    });
}

const jobMoods = { running: "good", failed: "bad", waiting: "warn" };
const verbNames = { pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Retry" };

function showJobs(j) {
  const jobs = j.error ? [] : [...j.list].reverse();
  text(find("jobs-count"), jobs.length + (j.more ?? 0) ? String(jobs.length + (j.more ?? 0)) : "");
  show(find("no-jobs"), jobs.length === 0);
  list(find("job-list"), jobs, x => x.id, () => make("li", { class: "job" },
    make("header", {}, make("span", { class: "name" }), make("span", { class: "chip" }), make("span", { class: "muted" }), make("span", { class: "buttons" })),
    make("p", { class: "muted" })), (e, x) => {
    const [name, state, amount, buttons] = e.firstChild.children;
    text(name, `${x.id}  ${x.name}`);
    state.className = "chip " + (jobMoods[x.state] ?? "");
    text(state, x.state);
    text(amount, x.total > 0 ? `${size(x.done)} of ${size(x.total)}` : "");
    text(e.lastChild, tidy([x.message, x.remedy].filter(Boolean).join("; ")));
    attribute(e.lastChild, "title", x.message ?? "");
    show(e.lastChild, !!(x.message || x.remedy));
    list(buttons, node?.actions ? x.verbs : [], v => v,
      v => {
        const b = make("button", { type: "button", class: "small", "aria-label": `${verbNames[v]} job ${x.id}` }, verbNames[v]);
        b.addEventListener("click", () => steer(v, x));
        return b;
      }, () => {});
  });
}

async function steer(verb, job) {
  if (verb === "cancel" && !await confirmed(job)) return;
  try {
    const answer = await fetch(`/dash/api/jobs/${job.id}/${verb}`, { method: "POST" });
    notice(answer.ok ? "" : `Job ${job.id}: ${(await answer.json()).error}`);
  } catch {
    notice(`Job ${job.id}: the daemon does not answer`);
  }
}

function confirmed(job) {
  const ask = find("ask");
  text(find("ask-text"), `Job ${job.id} (${job.name}) is given up. What has come of it stays where it is, and the same get goes on from there.`);
  ask.returnValue = "no";
  ask.showModal();
  return new Promise(done => ask.addEventListener("close", () => done(ask.returnValue === "yes"), { once: true }));
}

function notice(line) {
  text(find("notice"), line);
  show(find("notice"), line !== "");
}

// Events.
const kindWords = { connected: "peer", gone: "peer", refused: "refused", unreachable: "unreachable", banned: "banned", health: "peer health", partition: "network",
  vital: "health", begun: "transfer", ended: "transfer", job: "job" };
const groups = {
  all: () => true, grave: e => e.grave, transfers: e => e.transfer > 0 || e.kind === "job",
  peers: e => !!e.peer,
};
const keptEvents = 500, shownEvents = 120;

function addEvents(fresh, full) {
  events = full ? fresh : events.concat(fresh);
  if (events.length > keptEvents) events = events.slice(-keptEvents);
  if (!full) {
    for (const e of fresh) {
      if (e.kind === "begun" || e.kind === "ended") say(tidy(e.text));
      else if (e.grave && !e.peer) say(e.text); // what a single peer does shows in what stalls
    }
  }
  showEvents();
}

function showEvents() {
  const which = document.querySelector('input[name="events"]:checked').value;
  const shown = events.filter(groups[which]).slice(-shownEvents).reverse();
  show(find("no-events"), shown.length === 0);
  text(find("no-events"), events.length ? "None of this kind." : "Nothing has happened yet.");
  list(find("event-list"), shown, e => e.seq,
    e => make("li", { class: e.grave ? "grave" : undefined },
      make("time", { datetime: new Date(e.at).toISOString() }, clock(e.at)),
      make("span", { class: "kind" }, kindWords[e.kind] ?? e.kind),
      make("span", { class: "text", title: [e.peer, e.text].filter(Boolean).join(" ") }, (e.peer ? short(e.peer) + " " : "") + tidy(e.text))),
    () => {});
}

// The transfer whose pieces are looked at.
const open = new Map(); // id → box
function openDetail(id, box) {
  if (box) open.set(id, box);
  else open.delete(id);
  lookAt(id);
}

async function lookAt(id) {
  const box = open.get(id);
  if (!box?.isConnected) {
    open.delete(id);
    return;
  }
  try {
    const answer = await fetch("/dash/api/transfer/" + id, { cache: "no-store" });
    if (answer.ok) transfers.detail(box, await answer.json());
  } catch { /* the stream says that the daemon is gone */ }
}

// Once a second, while somebody looks: what depends on the time alone, and the pieces.
setInterval(() => {
  if (document.hidden || !node) return;
  text(find("f-up"), span((now() - node.since) / 1000));
  showFlow();
  for (const id of open.keys()) lookAt(id);
}, 1000);

function showFlow() {
  const s = seconds();
  chart.show(s);
  const [i, o] = chart.lately(s);
  text(find("f-in"), rate(i));
  text(find("f-out"), rate(o));
}

function news(n) {
  ahead = n.time - Date.now();
  if (n.node) showNode(n.node);
  if (n.flow) chart.add(n.flow, n.full);
  if (n.running) showRunning(n.running);
  if (n.ended) showEnded(n.ended);
  if (n.peers) showPeers(n.peers);
  if (n.store) showStore(n.store);
  if (n.caches) showCaches(n.caches);
  if (n.jobs) showJobs(n.jobs);
  if (n.full || n.events) addEvents(n.events ?? [], n.full);
  if (n.full) {
    showFlow();
    text(find("f-up"), span((now() - node.since) / 1000));
    document.documentElement.dataset.ready = "yes";
  }
}

let state = "";
function says(what, line) {
  if (what === "lost" && state === "live") say("The connection to the daemon is lost");
  if (what === "live" && state === "lost") say("The daemon is back");
  state = what;
  attribute(find("live"), "data-state", what);
  text(find("live-text"), line);
}

// The theme: the system's, or one of the two.
const themes = ["auto", "light", "dark"];
function setTheme(t) {
  if (t === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = t;
  localStorage.setItem("dray-theme", t);
  text(find("theme"), "Theme: " + t);
  transfers.redraw();
}
find("theme").addEventListener("click", () => {
  const t = document.documentElement.dataset.theme ?? "auto";
  setTheme(themes[(themes.indexOf(t) + 1) % themes.length]);
});
text(find("theme"), "Theme: " + (document.documentElement.dataset.theme ?? "auto"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", transfers.redraw);
addEventListener("resize", transfers.redraw);

find("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(find("self").textContent);
    text(find("copy"), "Copied");
  } catch {
    getSelection().selectAllChildren(find("self"));
    text(find("copy"), "Selected");
  }
  setTimeout(() => text(find("copy"), "Copy id"), 2000);
});
for (const radio of document.querySelectorAll('input[name="events"]')) radio.addEventListener("change", showEvents);
text(find("origin"), location.origin);
peers.begin(now);
listen(news, says);
