// The first script of every page: where the vendored libraries lie, under whatever address the book is served.
window.PRUNELAB_WEBLIB = new URL("weblib/", document.currentScript.src).href;
