/** Offline use of the site (service-worker.js, at the site's root). */

import { atBase } from "./base.js";

export const offline = {
  /**
   * Stores this version of the site; resolves to true once it is complete and works offline. A newer
   * version takes over when no page of the old one is open any more.
   *
   * @returns {Promise<boolean>} false if the browser has no storage, a file could not be fetched, or the
   *     library's files are on another origin
   */
  async enable() {
    if (!navigator.serviceWorker || atBase().origin !== location.origin) return false;
    try {
      // The manifest lists every file's hash, so its own hash identifies the version.
      const manifest = await fetch(atBase("manifest.json"), { cache: "no-store" });
      if (!manifest.ok) throw new Error(`manifest.json: status ${manifest.status}`);
      const digest = await crypto.subtle.digest("SHA-256", await manifest.arrayBuffer());
      const version = [...new Uint8Array(digest)].map((x) => x.toString(16).padStart(2, "0")).join("");
      const script = atBase(`service-worker.js?version=${version}`);
      const registration = await navigator.serviceWorker.register(script, { scope: atBase().href });
      return await settled(registration);
    } catch {
      const kept = await navigator.serviceWorker.getRegistration(atBase().href);
      return !!kept?.active; // no network: a version stored before still works
    }
  },
};

/** Whether the installation succeeds. @param {ServiceWorkerRegistration} registration */
function settled({ installing, waiting, active }) {
  const worker = installing ?? waiting ?? active;
  if (!worker) return false;
  return new Promise((resolve) => {
    const look = () => {
      if (worker.state === "redundant") resolve(!!active);
      else if (worker.state !== "installing" && worker.state !== "activating") resolve(true);
    };
    worker.addEventListener("statechange", look);
    look();
  });
}
