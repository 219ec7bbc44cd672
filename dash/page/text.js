// How numbers, times and ids are written. Nothing here touches the page.

const units = ["kB", "MB", "GB", "TB", "PB", "EB"];

export function size(n) {
  if (!(n >= 1000)) return Math.round(n || 0) + " B";
  let f = n / 1000, u = 0;
  while (f >= 999.5 && u < units.length - 1) { f /= 1000; u++; }
  return (f < 9.95 ? f.toFixed(1) : f.toFixed(0)) + " " + units[u];
}

export const rate = n => size(n) + "/s";

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + String(Math.floor(s % 3600 / 60)).padStart(2, "0") + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

export const plural = (n, noun) => n + " " + noun + (n === 1 ? "" : "s");

export const short = id => id.length > 8 ? "…" + id.slice(-8) : id;

// tidy writes a text of the daemon's on one line, with the ends of long ids instead of the whole.
export const tidy = text => text.replace(/\s*\n\s*/g, "; ").replace(/\b(?:12D3KooW|Qm)[1-9A-HJ-NP-Za-km-z]{36,}\b/g, short)
  .replace(/\bb[a-z2-7]{50,}\b/g, short);

export const last = path => path.replace(/[/\\]+$/, "").split(/[/\\]/).pop();

export function millis(ms) {
  if (!(ms > 0)) return "–";
  return ms < 10 ? ms.toFixed(1) + " ms" : ms.toFixed(0) + " ms";
}

export const clock = ms => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const percent = (part, whole) => whole > 0 ? Math.min(100, Math.floor(1000 * part / whole) / 10).toFixed(1) + " %" : "";
