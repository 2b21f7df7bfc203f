/** The sessions of the worker's models: the calls that session.js makes. */

import { inPython, plain } from "./python.js";
import { errorOf } from "./rpc.js";
import { alone, modelIfLoaded, modelOf, newId, report } from "./worker-models.js";
import { streamOf } from "./worker-texts.js";

/** @typedef {import("./worker-models.js").Context} Context */

/** Methods for `serve`. @type {Parameters<typeof import("./rpc.js").serve>[0]} */
export const sessionCalls = {
  session: (_, id, prompt, options) => added(id, modelOf(id).proxy.session(inPython(prompt), inPython(options))),
  fork: (_, id, session) => added(id, sessionOf(id, session).fork()),
  append: (_, id, session, tokens, { allowedSpecial }) =>
    sessionOf(id, session).append(inPython(tokens), inPython(allowedSpecial)),
  rewind: (_, id, session, tokens) => sessionOf(id, session).rewind(tokens),
  edit: (_, id, session, tokens, { allowedSpecial }) =>
    sessionOf(id, session).edit(inPython(tokens), inPython(allowedSpecial)),
  tokenIds: (_, id, session) => plain(sessionOf(id, session).tokens()),
  text: (_, id, session) => sessionOf(id, session).text(),
  continue: (context, id, session, options) =>
    streamOf(context, id, options, (_, ...settings) => sessionOf(id, session).stream(...settings)),
  toBytes: ({ signal }, id, session) =>
    alone(id, "saving a session", async () => {
      const bytes = plain(await sessionOf(id, session).to_bytes());
      signal.throwIfAborted();
      return bytes;
    }),
  savedRun: (_, id, session) =>
    alone(id, "saving a run", async () => plain(await sessionOf(id, session).saved_run())),
  loadSession: ({ signal }, id, bytes) =>
    alone(id, "loading a session", async ({ proxy }) => {
      const session = await proxy.load_session(inPython(bytes));
      if (!signal.aborted) return added(id, session);
      session.close();
      session.destroy();
      throw signal.reason;
    }),
  closeSession,
};

/** Keeps a new session until it is closed. @param {number} id @param {any} proxy */
function added(id, proxy) {
  const session = newId();
  modelOf(id).sessions.set(session, proxy);
  return session;
}

/** @param {number} id @param {number} session */
function sessionOf(id, session) {
  const found = modelOf(id).sessions.get(session);
  if (found) return found;
  throw errorOf({ name: "DisposedTensorError", message: "this session is closed. Begin another one" });
}

/** @param {Context} context @param {number} id @param {number} session */
function closeSession(context, id, session) {
  const model = modelIfLoaded(id);
  const proxy = model?.sessions.get(session);
  if (!model || !proxy) return;
  model.sessions.delete(session);
  proxy.close();
  proxy.destroy();
  report(id, model);
}
