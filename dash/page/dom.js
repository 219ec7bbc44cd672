// The little that is needed to change a page without losing where its reader is. Text from elsewhere is only ever set as text.

export const find = id => document.getElementById(id);

// make returns a new element. Attributes that are undefined or false are left out; children are elements or texts.
export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children);
  return e;
}

export function text(e, value) {
  if (e.textContent !== value) e.textContent = value;
}

export function show(e, yes) {
  if (e.hidden === yes) e.hidden = !yes;
}

export function attribute(e, name, value) {
  if (e.getAttribute(name) !== value) e.setAttribute(name, value);
}

// list makes parent's children those of items, in their order: make(item) for a new key, update(element, item) for all. An
// element that stays where it is is not touched, so that focus stays.
export function list(parent, items, key, build, update) {
  const old = new Map();
  for (const e of [...parent.children]) old.set(e.dataset.key, e);
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = String(key(item));
    let e = old.get(k);
    if (!e) {
      e = build(item);
      e.dataset.key = k;
    }
    old.delete(k);
    update(e, item);
    if (e === at) at = at.nextElementSibling;
    else parent.insertBefore(e, at);
  }
  for (const e of old.values()) e.remove();
}

// part finds an element within another by what it was called with data-part.
export const part = (e, name) => e.querySelector(`[data-part="${name}"]`);

// paint returns a colour of the style sheet as it is in the theme of now.
export function paint(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
const probe = make("span", { hidden: true });
document.documentElement.append(probe);
