/** Offline use of the site (service-worker.js, at the site's root). */

const SITE = new URL("../", import.meta.url);

export const offline = {
  /**
   * Stores this version of the site; resolves to true once it is complete and works offline. A newer
   * version takes over when no page of the old one is open any more.
   *
   * @returns {Promise<boolean>} false if the browser has no storage, or a file could not be fetched
   */
  async enable() {
    if (!navigator.serviceWorker) return false;
    try {
      // The manifest lists every file's hash, so its own hash identifies the version.
      const manifest = await fetch(new URL("manifest.json", SITE), { cache: "no-store" });
      if (!manifest.ok) throw new Error(`manifest.json: status ${manifest.status}`);
      const digest = await crypto.subtle.digest("SHA-256", await manifest.arrayBuffer());
      const version = [...new Uint8Array(digest)].map((x) => x.toString(16).padStart(2, "0")).join("");
      const script = new URL(`service-worker.js?version=${version}`, SITE);
      const registration = await navigator.serviceWorker.register(script, { scope: SITE.href });
      return await settled(registration);
    } catch {
      const kept = await navigator.serviceWorker.getRegistration(SITE.href);
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
