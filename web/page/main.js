// The page: wires its parts together. Each part has one concern and one file beside this one.

import { offline } from "../offline.js";
import { FIRST } from "./branches.js";
import { showAdapter, showCapability } from "./capability.js";
import { Chooser } from "./chooser.js";
import { copyText } from "./clipboard.js";
import { PythonConsole } from "./console.js";
import { element } from "./dom.js";
import { Draft } from "./draft.js";
import { Inspector } from "./inspector/inspector.js";
import { Loader } from "./loading.js";
import { lookAtMemory, showMemory, watchMemory } from "./memory-line.js";
import { addOdds, endOdds, showOdds, startOdds } from "./inspector/odds.js";
import { fetchRecording } from "./recorded.js";
import { saveRun } from "./run-file.js";
import { currentSettings, fitSettings, linkedStops, startSettings, writeSettings, writeStops } from "./settings.js";
import { linkTo, readLink } from "./share.js";
import { showStage } from "./stages.js";
import { replaceStory, storyText } from "./story.js";
import { Writer } from "./writing.js";

const prompt = element("prompt", HTMLTextAreaElement);
const message = element("writing-message", HTMLElement);

const draft = new Draft();
const writer = new Writer(draft);
const loader = new Loader({
  onState,
  onProgress: showStage,
  onMemory: showMemory,
  onNote: (note) => void (message.textContent = note),
  onEnded: (message) => chooser.complain(message),
});
const chooser = new Chooser(loader, onLoaded);
const python = new PythonConsole(() => void lookAtMemory(loader.lm));
const inspector = new Inspector();

/** @param {import("./loading.js").State} state */
function onState(state) {
  chooser.draw();
  if (state === "ready") return;
  showAdapter(null);
  Reflect.deleteProperty(globalThis, "lm");
  writer.use(null);
  python.use(null);
  inspector.use(null);
}

/** @param {import("../gpt2.js").GPT2} lm */
function onLoaded(lm) {
  const { model } = lm.info;
  showAdapter(lm);
  fitSettings(lm.info);
  writer.use(lm, model);
  python.use(lm);
  inspector.use(lm);
  Object.assign(globalThis, { lm }); // for the browser's own console
  void lookAtMemory(lm);
  void tellOffline(lm.info.stored);
}

/** @param {boolean} stored whether the model will be there, too */
async function tellOffline(stored) {
  const ready = await offline.enable().catch(() => false);
  const words = stored ? "This page and the model work offline." : "This page works offline. The model is not stored.";
  element("offline", HTMLElement).textContent = ready ? words : "\u00a0";
}

/** Restores what a link holds, and says what it cannot; it never runs by itself. */
function restore() {
  const link = readLink(location.hash);
  if (link.prompt !== null) prompt.value = link.prompt;
  element("link-damaged", HTMLElement).hidden = !link.damaged;
  writer.show(link.texts);
  writeSettings(link.settings);
  if (link.stop.length) writeStops(link.stop);
  if (link.dtype) chooser.proposeDtype(link.dtype);
  if (link.model) chooser.propose(link.model);
}

/** Shows what is inside the text of index.html, as long as that is the text of the page. */
async function showRecorded() {
  const recording = await fetchRecording();
  const shown = recording !== null && storyText() === recording.text;
  showOdds();
  if (!shown) return;
  replaceStory(recording.tokens.map(addOdds));
  endOdds();
  setTimeout(() => inspector.showRecorded(recording)); // a task of its own
}

element("copy", HTMLButtonElement).addEventListener("click", async () => {
  const copied = await copyText(storyText());
  message.textContent = copied ? "Text copied." : "The browser does not allow this page to copy.";
});

element("save-run", HTMLButtonElement).addEventListener("click", async () => {
  message.textContent = await saveRun(draft.session);
});

element("share", HTMLButtonElement).addEventListener("click", async () => {
  const shareable = chooser.shareable;
  const { href, left } = linkTo(prompt.value, await writer.linked(), currentSettings(), linkedStops(), shareable);
  history.replaceState(null, "", href);
  const copied = await copyText(href);
  const done = copied ? "Link copied." : "The link is in the address bar.";
  const lacking = " It does not include the model, which comes from a folder.";
  const names = left.map(({ branch }) => branch || FIRST).join("; ");
  const others = left.length ? ` It has no room for ${left.length === 1 ? "a branch" : `${left.length} branches`}: ${names}.` : "";
  message.textContent = done + (shareable.folder ? lacking : "") + others;
});

startSettings(() => void writer.generate());
startOdds((entry, alternative) => void writer.fork(entry, alternative));
restore();
void showRecorded();
addEventListener("hashchange", restore);
watchMemory(() => loader.lm);
// A page that is kept looks for its next version, which takes over when it is opened again.
if (navigator.serviceWorker?.controller) void offline.enable();
if (await showCapability()) await chooser.open();
