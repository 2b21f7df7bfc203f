// Copying text out of the page.

/**
 * @param {string} text
 * @returns {Promise<boolean>} false where the browser does not allow it (an insecure origin, say)
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
