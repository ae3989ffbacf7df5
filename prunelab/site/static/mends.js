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
  function scroll(element) {
    const wide = element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX !== "visible";
    if (wide && !element.hasAttribute("tabindex")) element.tabIndex = 0;
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

  // Widgets come late, and with a live kernel at any time. A frame's worth of changes is looked at once, and only where
  // they are: a progress bar changes several times a second, and a whole chapter takes long to measure. What a change
  // has shown elsewhere is found a little later.
  const LATER = 1000; // ms
  let changed = new Set();
  let later = 0;
  function look(parts) {
    const each = (selector, mend) => {
      const found = parts.flatMap((part) => [part.closest(selector), ...part.querySelectorAll(selector)]);
      new Set(found.filter(Boolean)).forEach(mend);
    };
    each(WIDGETS, name);
    each(SCROLLING, scroll);
  }
  function everywhere() {
    clearTimeout(later);
    later = 0;
    look([document.body]);
  }
  function frame() {
    const parts = [...changed];
    changed = new Set();
    if (parts.length > 100) everywhere();
    else look(parts);
  }
  function soon(records) {
    if (!changed.size) requestAnimationFrame(frame);
    records.forEach(({ target }) => changed.add(target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement || document.body));
    if (!later) later = setTimeout(everywhere, LATER);
  }

  theme();
  toggles();
  citations();
  requestAnimationFrame(everywhere);
  new MutationObserver(soon).observe(document.body, { childList: true, characterData: true, subtree: true });
  window.addEventListener("resize", () => requestAnimationFrame(everywhere));
  window.addEventListener("load", () => requestAnimationFrame(everywhere));
})();
