// Does a piece of Python want another line before it can run? The rule of Python's own prompt.

/**
 * True for an open bracket or triple quote, a trailing backslash, and for a block (a line that ends
 * with a colon, then indented ones) until an empty line ends it.
 * @param {string} code
 * @returns {boolean}
 */
export function wantsMore(code) {
  const { depth, quoted } = scan(code);
  if (depth > 0 || quoted || code.endsWith("\\")) return true;
  const lines = code.split("\n");
  const last = lines[lines.length - 1].replace(/#.*$/, "").trimEnd();
  if (last.endsWith(":")) return true;
  const inBlock = lines.some((line) => /^\s+\S/.test(line)) || lines[0].startsWith("@");
  return inBlock && last !== "";
}

/** What the next line begins with. @param {string} code */
export function indentAfter(code) {
  const last = code.slice(code.lastIndexOf("\n") + 1);
  const indent = /^\s*/.exec(last)?.[0] ?? "";
  return last.replace(/#.*$/, "").trimEnd().endsWith(":") ? `${indent}    ` : indent;
}

/** Brackets that are open at the end, and whether a triple quote is. @param {string} code */
function scan(code) {
  let depth = 0;
  let quoted = false;
  const tokens = /'''[^]*?('''|$)|"""[^]*?("""|$)|'(?:\\.|[^'\\\n])*'?|"(?:\\.|[^"\\\n])*"?|#.*|[[({]|[\])}]/g;
  for (const [token, single, double] of code.matchAll(tokens)) {
    if ("[({".includes(token)) depth += 1;
    else if ("])}".includes(token)) depth -= 1;
    else if (single === "" || double === "") quoted = true;
  }
  return { depth, quoted };
}
