// The map of a transfer's pieces: each cell is a run of leaves.
import { paint } from "./dom.js";
import { plural } from "./text.js";

// A cell is [leaves, here, reused, asked, from, of, copies]; from and of are indexes into who is named.
const LEAVES = 0, HERE = 1, REUSED = 2, ASKED = 3, FROM = 4, OF = 5, COPIES = 6;

export function draw(canvas, detail, mode, series) {
  const width = canvas.clientWidth, cells = detail.cells;
  if (!width || !cells.length) return;
  const fit = Math.max(8, Math.min(64, Math.floor(width / 10)));
  const rows = Math.ceil(cells.length / fit), columns = Math.ceil(cells.length / rows);
  const size = Math.max(9, Math.min(18, Math.floor(width / columns)));
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = width * ratio;
  canvas.height = rows * size * ratio;
  canvas.style.height = rows * size + "px";
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  const sunken = paint("sunken"), edge = paint("line"), grey = paint("here"), asked = paint("in"), good = paint("s2"), bad = paint("bad");
  const colours = detail.peers.map(p => paint("s" + series(p)));
  const s = size - 1;
  cells.forEach((c, i) => {
    const x = i % columns * size, y = Math.floor(i / columns) * size;
    g.fillStyle = sunken;
    g.fillRect(x, y, s, s);
    if (mode === "copies") {
      if (c[COPIES] > 0) {
        g.globalAlpha = Math.min(1, .25 + .25 * c[COPIES]);
        g.fillStyle = good;
        g.fillRect(x, y, s, s);
        g.globalAlpha = 1;
      } else if (c[COPIES] === 0) {
        g.strokeStyle = bad;
        g.strokeRect(x + 1.5, y + 1.5, s - 3, s - 3);
      }
      return;
    }
    const here = c[HERE] / c[LEAVES];
    if (here > 0) {
      const reused = c[REUSED] * 2 > c[HERE];
      g.fillStyle = reused || c[FROM] < 0 ? grey : colours[c[FROM]];
      g.fillRect(x, y + s * (1 - here), s, s * here);
      if (reused && size > 8) { // striped, as in the legend
        g.fillStyle = sunken;
        for (let k = 2; k < s; k += 4) g.fillRect(x, y + k, s, 1.5);
      }
    }
    if (c[ASKED] > 0) {
      g.strokeStyle = c[OF] < 0 ? asked : colours[c[OF]];
      g.lineWidth = 2;
      g.strokeRect(x + 1, y + 1, s - 2, s - 2);
    } else if (here === 0) {
      g.strokeStyle = edge;
      g.lineWidth = 1;
      g.strokeRect(x + .5, y + .5, s - 1, s - 1);
    }
  });
}

// tell says the same in words.
export function tell(detail) {
  let here = 0, asked = 0, reused = 0, least = Infinity;
  for (const c of detail.cells) {
    here += c[HERE];
    asked += c[ASKED];
    reused += c[REUSED];
    if (c[HERE] < c[LEAVES] && c[COPIES] >= 0) least = Math.min(least, c[COPIES]);
  }
  let text = `${here} of ${plural(detail.leaves, "piece")} here`;
  if (reused) text += `, ${reused} of them from before`;
  if (asked) text += `, ${asked} on their way`;
  if (least < Infinity && here < detail.leaves) text += `; of what is missing the rarest has ${plural(least, "copy").replace("copys", "copies")} among the connected peers`;
  return text + ".";
}
