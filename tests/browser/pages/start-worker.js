// Starts Python as the site's worker does, without a GPU; {python: code} is answered with what was
// reported while starting and with the code's value, or with {failure}.

import { startPython } from "../web/python.js";

const reports = [];
const onFatal = async (reason, last) => {
  await last;
  postMessage({ failure: reason });
};

onmessage = async ({ data: { python } }) => {
  try {
    const { pyodide } = await startPython((stage, report) => reports.push({ stage, ...report }), onFatal);
    postMessage({ reports, value: pyodide.runPython(python) });
  } catch ({ message }) {
    postMessage({ failure: message });
  }
};
