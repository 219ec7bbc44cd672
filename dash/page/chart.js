// What passed in each second of the last five minutes.
import { rate } from "./text.js";

// The last seconds are not told yet when they are over.
const seconds = 300, late = 2, left = 62, bottom = 18, top = 6;
const space = "http://www.w3.org/2000/svg";

function draw(parent, name, attributes, content) {
  const e = document.createElementNS(space, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (content !== undefined) e.textContent = content;
  parent.append(e);
}

// nice is the least of 1, 2 and 5 times a power of ten that is no less than n.
function nice(n) {
  const p = 10 ** Math.floor(Math.log10(Math.max(n, 1000)));
  return [1, 2, 5, 10].find(x => x * p >= n) * p;
}

export class Chart {
  constructor(svg) {
    this.svg = svg;
    this.flow = new Map(); // second → [in, out]
    new ResizeObserver(() => this.show(this.now ?? 0)).observe(svg);
  }

  add(list, full) {
    if (full) this.flow.clear();
    for (const [second, i, o] of list) this.flow.set(second, [i, o]);
  }

  // lately is the mean of three seconds, the last that are known.
  lately(now) {
    let i = 0, o = 0;
    for (let k = late; k < late + 3; k++) {
      const f = this.flow.get(now - k);
      if (f) { i += f[0]; o += f[1]; }
    }
    return [i / 3, o / 3];
  }

  show(now) {
    this.now = now;
    for (const second of this.flow.keys()) if (second < now - seconds - late) this.flow.delete(second);
    const { width, height } = this.svg.getBoundingClientRect();
    if (width < 50 || now === 0) return;
    const values = [];
    let most = 0, sumIn = 0, sumOut = 0;
    for (let k = seconds + late - 1; k >= late; k--) {
      const f = this.flow.get(now - k) ?? [0, 0];
      values.push(f);
      most = Math.max(most, f[0], f[1]);
      sumIn += f[0];
      sumOut += f[1];
    }
    const scale = nice(most || 1000), w = width - left - 4, h = height - bottom - top;
    const x = k => left + w * k / (seconds - 1), y = v => top + h * (1 - v / scale);
    const path = which => values.map((f, k) => (k ? "L" : "M") + x(k).toFixed(1) + " " + y(f[which]).toFixed(1)).join("");
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const part of most === 0 ? [0] : [0, .5, 1]) {
      draw(this.svg, "line", { class: "grid", x1: left, x2: left + w, y1: y(scale * part), y2: y(scale * part) });
      draw(this.svg, "text", { x: left - 8, y: y(scale * part) + 4, "text-anchor": "end" }, rate(scale * part));
    }
    const marks = width > 420 ? [[0, "5 min ago", "start"], [120, "3 min", "middle"], [240, "1 min", "middle"], [299, "now", "end"]] :
      [[0, "5 min ago", "start"], [299, "now", "end"]];
    for (const [k, label, anchor] of marks) draw(this.svg, "text", { x: x(k), y: height - 3, "text-anchor": anchor }, label);
    if (sumIn > 0) {
      draw(this.svg, "path", { class: "area", d: path(0) + `L${x(seconds - 1)} ${y(0)}L${x(0)} ${y(0)}Z` });
      draw(this.svg, "path", { class: "line in", d: path(0) });
    }
    if (sumOut > 0) draw(this.svg, "path", { class: "line out", d: path(1) });
    if (most === 0) draw(this.svg, "text", { x: left + w / 2, y: top + h / 2 - 6, "text-anchor": "middle" }, "nothing has passed yet");
    const [i, o] = this.lately(now);
    this.svg.setAttribute("aria-label", most === 0 ? "Nothing has passed in the last five minutes" :
      `Now ${rate(i)} in and ${rate(o)} out; mean of five minutes ${rate(sumIn / seconds)} in and ${rate(sumOut / seconds)} out; ` +
      `most in one second ${rate(most)}`);
  }
}
