// Mends what third parties leave out, so that the pages can be used without a mouse and without eyes.
(() => {
  "use strict";

  // The theme: what a button shows and what it is called must agree (WCAG 2.5.3).
  function theme() {
    document.querySelectorAll(".search-button-field").forEach((button) => button.removeAttribute("aria-label"));
    document.querySelectorAll(".theme-switch-button i").forEach((icon) => {
      icon.removeAttribute("title");
      icon.setAttribute("aria-hidden", "true");
    });
  }

  // myst-nb: every "Show code cell source" is called "Toggle hidden content", to those who cannot see it.
  function toggles() {
    document.querySelectorAll("details.hide > summary[aria-label]").forEach((summary) => summary.removeAttribute("aria-label"));
  }

  // Sphinx: a list of citations whose children are no list items.
  function citations() {
    document.querySelectorAll('.citation-list > [role="doc-biblioentry"]').forEach((entry) => entry.setAttribute("role", "listitem"));
  }

  // Wide things scroll inside themselves; a keyboard must reach them to scroll (WCAG 2.1.1).
  const SCROLLING = ".cell_output pre, div.highlight pre, div.math.notranslate, .pst-scrollable-table-container, .prune-live-output";
  function scrolling() {
    document.querySelectorAll(SCROLLING).forEach((element) => {
      const wide = element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX !== "visible";
      if (wide && !element.hasAttribute("tabindex")) element.tabIndex = 0;
    });
  }

  // ipywidgets: the handles and the readout of a slider have no name; the text beside them is it.
  function name(widget) {
    const label = widget.querySelector(".widget-label");
    const text = label ? label.textContent.trim() : "";
    const handles = widget.querySelectorAll('[role="slider"]');
    handles.forEach((handle, index) => {
      if (handle.hasAttribute("aria-label")) return;
      const which = handles.length > 1 ? (index ? ", upper end" : ", lower end") : "";
      handle.setAttribute("aria-label", (text || "Slider") + which);
    });
    // A slider over labels tells only the position, "2"; what it means stands in the readout.
    const readout = widget.querySelector(".widget-readout");
    if (readout && handles.length === 1 && handles[0].getAttribute("aria-valuetext") !== readout.textContent) {
      handles[0].setAttribute("aria-valuetext", readout.textContent);
    }
    widget.querySelectorAll(".widget-readout[contenteditable]").forEach((readout) => {
      readout.setAttribute("role", "textbox");
      readout.setAttribute("aria-label", (text || "Slider") + ", value");
    });
    const bar = widget.querySelector(".progress");
    if (bar && !bar.hasAttribute("role")) {
      bar.setAttribute("role", "progressbar");
      bar.setAttribute("aria-label", text || "Progress");
    }
  }

  const WIDGETS = ".widget-slider, .widget-hslider, .widget-vslider, .widget-hprogress, .widget-vprogress";
  const widgets = () => document.querySelectorAll(WIDGETS).forEach(name);

  // Widgets come late, and with a live kernel at any time. A frame's worth of changes is looked at once.
  let waiting = false;
  function soon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      widgets();
      scrolling();
    });
  }

  theme();
  toggles();
  citations();
  soon();
  new MutationObserver(soon).observe(document.body, { childList: true, characterData: true, subtree: true });
  window.addEventListener("resize", soon);
  window.addEventListener("load", soon);
})();
