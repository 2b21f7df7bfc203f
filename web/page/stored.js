// The models kept in this browser's storage: what they are, how large, and a button to delete each.

import { models } from "../gpt2.js";
import { button, element, make } from "./dom.js";
import { counted, part, size } from "./format.js";

/** @typedef {import("../gpt2.js").StoredModel} StoredModel */

const list = element("stored-list", HTMLUListElement);
const count = element("stored-count", HTMLElement);
const empty = element("stored-empty", HTMLElement);

/**
 * Draws the list anew.
 * @param {(model: StoredModel) => void} onUse
 * @param {() => void} onChange called after a model was deleted
 */
export async function showStored(onUse, onChange) {
  const stored = await models.list();
  const total = stored.reduce((sum, model) => sum + model.bytes, 0);
  count.textContent = stored.length
    ? `${counted(stored.length, "model")}, ${size(total)}`
    : "none";
  empty.hidden = stored.length > 0;
  list.replaceChildren(
    ...stored.map((model) =>
      item(model, onUse, async () => {
        await models.remove(model.id);
        await showStored(onUse, onChange);
        const next = list.querySelector("button") ?? document.querySelector("#others summary");
        if (next instanceof HTMLElement) next.focus();
        onChange();
      }),
    ),
  );
}

/**
 * @param {StoredModel} model
 * @param {(model: StoredModel) => void} onUse
 * @param {() => void} onDelete
 */
function item(model, onUse, onDelete) {
  const { name, bytes, total, complete } = model;
  const held = complete ? size(bytes) : part(bytes, total);
  return make(
    "li",
    "row",
    make("span", "stored-name", name),
    make("span", "note", held),
    button(complete ? "Use" : "Resume", () => onUse(model), `${complete ? "Use" : "Resume"} ${name}`),
    button("Delete", onDelete, `Delete ${name} from this device`),
  );
}
