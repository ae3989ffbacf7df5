// ipywidgets' labels still ask for MathJax 2 (`MathJax.Hub.Queue`); the pages have MathJax 3.
(() => {
  "use strict";
  const typeset = (call) => {
    const element = Array.isArray(call) ? call[2] : null;
    if (!element || !window.MathJax || !window.MathJax.typesetPromise) return;
    window.MathJax.startup.promise
      .then(() => window.MathJax.typesetPromise([element]))
      .catch((error) => console.warn("prunelab: could not typeset", error));
  };
  window.MathJax = window.MathJax || {};
  window.MathJax.Hub = window.MathJax.Hub || { Queue: (...calls) => calls.forEach(typeset), Config: () => {} };
})();
