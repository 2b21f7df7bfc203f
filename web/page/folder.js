// A model folder from the visitor's disk: picked, or dropped anywhere on the page.

import { element } from "./dom.js";

/**
 * Calls `onFiles(name, files)` whenever a folder (or its files) is picked or dropped.
 * @param {(name: string, files: File[]) => void} onFiles
 */
export function watchFolders(onFiles) {
  const picker = element("folder", HTMLInputElement);
  picker.addEventListener("change", () => {
    const files = [...(picker.files ?? [])];
    picker.value = ""; // so that picking the same folder again is a change again
    if (files.length) onFiles(files[0].webkitRelativePath.split("/")[0] || "folder", files);
  });
  watchDrops(onFiles);
}

/** @param {(name: string, files: File[]) => void} onFiles */
function watchDrops(onFiles) {
  const zone = element("dropzone", HTMLElement);
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) zone.hidden = true;
  });
  addEventListener("drop", async (event) => {
    zone.hidden = true;
    const { dataTransfer } = event;
    if (!dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const { name, files } = await filesOf(dataTransfer);
    if (files.length) onFiles(name, files);
  });
}

/**
 * The dropped files. Directories are read one level deep: a model's files are in one folder.
 * @param {DataTransfer} dataTransfer
 * @returns {Promise<{name: string, files: File[]}>}
 */
async function filesOf(dataTransfer) {
  // Entries must be taken before the first await: afterwards the drop's data is gone.
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const loose = [...dataTransfer.files];
  const directory = entries.find((entry) => entry?.isDirectory);
  if (!directory) return { name: "files", files: loose };
  const reader = /** @type {FileSystemDirectoryEntry} */ (directory).createReader();
  const inside = [];
  for (;;) {
    const batch = await promised((done, fail) => reader.readEntries(done, fail));
    if (batch.length === 0) break; // readEntries gives a hundred at a time
    inside.push(...batch);
  }
  const files = inside.filter((entry) => entry.isFile);
  return { name: directory.name, files: await Promise.all(files.map(fileOf)) };
}

/** @param {FileSystemEntry} entry @returns {Promise<File>} */
function fileOf(entry) {
  return promised((done, fail) => /** @type {FileSystemFileEntry} */ (entry).file(done, fail));
}

/**
 * The promise of an older API that calls back.
 * @template T
 * @param {(done: (value: T) => void, fail: (error: unknown) => void) => void} start
 * @returns {Promise<T>}
 */
function promised(start) {
  return new Promise((resolve, reject) => start(resolve, reject));
}
