// The page's code cells as editors. What the build printed stays as it is, widgets included, until its cell is run.
(() => {
  "use strict";

  const INSIDE_SOLUTION = ".solution, details.toggle-details, details.sd-dropdown";

  // The n-th source belongs to the n-th output for Thebe, so each cell gets a source and an output of its own.
  function mark() {
    const cells = [];
    for (const element of document.querySelectorAll("div.cell")) {
      const source = element.querySelector(".cell_input pre");
      if (!source) continue;
      source.setAttribute("data-executable", "true");
      source.setAttribute("data-language", "python");
      const printed = [...element.querySelectorAll(":scope > .cell_output, :scope > details > .cell_output")];
      const output = document.createElement("div");
      output.className = "prune-live-output";
      output.setAttribute("data-output", "");
      (printed.length ? printed[printed.length - 1] : element.lastElementChild).after(output);
      element.querySelectorAll("button.copybtn").forEach((button) => button.remove());
      cells.push({ element, printed, output, number: cells.length + 1, solution: Boolean(element.closest(INSIDE_SOLUTION)) });
    }
    return cells;
  }

  const typeset = async (node) => {
    node.classList.add("mathjax_process"); // the book tells MathJax to leave everything else alone
    await window.prunelab.mathjax();
    await window.MathJax.typesetPromise([node]);
  };

  // MathJax is only on pages with formulas; an output may be the first one.
  let loading = null;
  function mathjax() {
    if (window.MathJax && window.MathJax.typesetPromise) return window.MathJax.startup.promise;
    loading = loading || new Promise((resolve, reject) => {
      const old = window.MathJax || {};
      window.MathJax = { options: { processHtmlClass: "mathjax_process|math" }, startup: { typeset: false }, Hub: old.Hub };
      const script = document.createElement("script");
      script.src = window.PRUNELAB_WEBLIB + "mathjax/es5/tex-mml-chtml.js";
      script.onload = () => window.MathJax.startup.promise.then(resolve, reject);
      script.onerror = () => reject(new Error("MathJax could not be loaded"));
      document.head.append(script);
    });
    return loading;
  }

  // Thebe typesets with MathJax 2 only, which is not here: give it the page's own.
  function useMathJax(rendermime) {
    rendermime.latexTypesetter = {
      typeset: (node) => {
        if (/\\\(|\\\[|\$/.test(node.textContent)) typeset(node).catch((error) => console.warn("prunelab:", error));
      },
    };
    const html = rendermime.getFactory("text/html");
    const createRenderer = (options) => {
      const widget = html.createRenderer(options);
      widget.renderModel = (model) => {
        const source = String(model.data["text/latex"]);
        widget.node.textContent = source
          .replace(/\$\$([\s\S]+?)\$\$/g, "\\[$1\\]")
          .replace(/\$((?:\\.|[^$\\])+?)\$/g, "\\($1\\)");
        return typeset(widget.node);
      };
      return widget;
    };
    rendermime.addFactory({ safe: true, mimeTypes: ["text/latex"], createRenderer }, 60);
  }

  function button(text, label, action) {
    const element = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    element.setAttribute("aria-label", label);
    element.addEventListener("click", action);
    return element;
  }

  const INDENT = 4;

  // Between the margin and the code one Backspace takes back one Tab.
  function backspace(editor) {
    const { line, ch } = editor.getCursor();
    const before = editor.getLine(line).slice(0, ch);
    if (editor.somethingSelected() || !before || before.trim()) return editor.constructor.Pass;
    editor.replaceRange("", { line, ch: Math.floor((ch - 1) / INDENT) * INDENT }, { line, ch }, "+delete");
  }

  // Python's indentation, as everywhere else: by four spaces, never by a tab.
  function indentAsPython(editor) {
    editor.setOption("indentUnit", INDENT);
    editor.setOption("tabSize", INDENT);
    editor.setOption("indentWithTabs", false);
    return {
      Tab: () => editor.execCommand(editor.somethingSelected() ? "indentMore" : "insertSoftTab"),
      "Shift-Tab": () => editor.execCommand("indentLess"),
      Backspace: () => backspace(editor),
    };
  }

  // Tab indents in an editor, so Escape has to lead out of it, and the name of the field has to say so.
  function furnish(cell, host) {
    const box = cell.element.querySelector(".thebe-cell");
    const editor = box.querySelector(".CodeMirror").CodeMirror;
    const name = "Code of cell " + cell.number + ". Press Escape to leave the editor, Shift and Enter to run.";
    editor.getInputField().setAttribute("aria-label", name);
    const run = button("Run", "Run cell " + cell.number, () => host.run(cell));
    run.className = "prune-live-run";
    box.querySelector(".thebe-controls").prepend(run);
    editor.setOption("extraKeys", {
      ...editor.getOption("extraKeys"),
      ...indentAsPython(editor),
      "Shift-Enter": () => host.run(cell),
      Esc: () => run.focus(),
    });
    cell.box = box;
    cell.runButton = run;
    cell.editor = editor;
  }

  // Run one cell; true when it ended without an error.
  async function execute(cell) {
    cell.printed.forEach((element) => element.remove());
    cell.printed = [];
    cell.box.classList.add("prune-live-busy");
    cell.box.setAttribute("aria-busy", "true");
    try {
      const result = await cell.code.execute(cell.code.source);
      return Boolean(result) && !result.error;
    } finally {
      cell.box.classList.remove("prune-live-busy");
      cell.box.removeAttribute("aria-busy");
    }
  }

  // Make every cell of the page an editor; `host.run(cell)` is what their Run buttons do.
  async function open(options, host) {
    const cells = mark();
    const { server, notebook } = await window.thebe.bootstrap(options);
    useMathJax(notebook.rendermime);
    cells.forEach((cell, index) => {
      cell.code = notebook.cells[index];
      furnish(cell, host);
    });
    return { cells, server, notebook };
  }

  window.prunelab = Object.assign(window.prunelab || {}, { cells: { open, execute }, mathjax });
})();
