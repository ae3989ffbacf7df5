// Between require.js and embed-amd.js: html-manager derives the addresses of its fonts from require's base address.
requirejs.config({ baseUrl: window.PRUNELAB_WEBLIB + "npm/" });
