// The page's kernel: find the server, load Thebe, start or find the session of this page, and watch over it.
// Everything that can go wrong ends in a `Trouble`, whose text the reader sees and whose `way` is the way back.
(() => {
  "use strict";

  const DEVICE =
    "(lambda t: t.cuda.get_device_name() + ' (CUDA)' if t.cuda.is_available() else " +
    "'Apple GPU (MPS)' if t.backends.mps.is_available() else " +
    "'CPU, ' + str(t.get_num_threads()) + (' thread' if t.get_num_threads() == 1 else ' threads'))(__import__('torch'))";
  const START_SECONDS = 60;

  class Trouble extends Error {
    // `way`: "retry" (try the same again), "login" (reload, which asks for a login).
    constructor(message, way = "retry") {
      super(message);
      this.way = way;
    }
  }

  const cookie = (name) => {
    const found = document.cookie.split("; ").find((part) => part.startsWith(name + "="));
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  };

  // A JupyterHub accepts its login cookie only together with this header.
  const headers = () => (cookie("_xsrf") ? { "X-XSRFToken": cookie("_xsrf") } : {});

  const NO_SERVER =
    "There is no kernel here: these pages are served without a Jupyter server. " +
    "In a clone of the repository run “make serve”, and open the address it prints.";

  async function findServer() {
    if (location.protocol === "file:") throw new Trouble(NO_SERVER);
    let answer;
    try {
      const address = new URL("../../live.json", window.PRUNELAB_WEBLIB);
      answer = await fetch(address, { headers: headers(), credentials: "same-origin", cache: "no-store" });
    } catch (error) {
      throw new Trouble("The server does not answer. If it was stopped, start it again with “make serve”.");
    }
    if (answer.status === 401 || answer.status === 403 || answer.redirected) {
      throw new Trouble("The server refuses this browser: its login is missing or has run out.", "login");
    }
    if (!answer.ok) throw new Trouble(NO_SERVER);
    try {
      const live = await answer.json();
      return { baseUrl: new URL(live.baseUrl, location.origin).href, kernelName: live.kernelName };
    } catch (error) {
      throw new Trouble(NO_SERVER);
    }
  }

  const load = (tag, attributes) =>
    new Promise((resolve, reject) => {
      const element = Object.assign(document.createElement(tag), attributes);
      element.onload = resolve;
      element.onerror = () => reject(new Trouble("The live-code library could not be loaded. Is the book complete?"));
      document.head.append(element);
    });

  async function loadThebe() {
    if (window.thebe) return;
    const base = window.PRUNELAB_WEBLIB + "thebe/";
    // Thebe is a UMD bundle: with require.js on the page it would hand itself to that and set no global.
    const define = window.define;
    window.define = undefined;
    try {
      await Promise.all([load("link", { rel: "stylesheet", href: base + "thebe.css" }), load("script", { src: base + "index.js" })]);
    } finally {
      window.define = define;
    }
  }

  const within = (promise, seconds, message) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Trouble(message)), seconds * 1000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };

  // A session is there before its messages can flow; a server that stops in between would go unnoticed.
  const connected = (kernel) =>
    new Promise((resolve) => {
      const look = () => {
        if (kernel.connectionStatus !== "connected") return;
        kernel.connectionStatusChanged.disconnect(look);
        resolve();
      };
      kernel.connectionStatusChanged.connect(look);
      look();
    });

  const again = (server) => {
    const fresh = new server.constructor(server.config);
    fresh.connectToJupyterServer();
    return fresh;
  };

  class PageKernel {
    // `events`: { changed(state), lost(message) } are called as the kernel's state changes.
    constructor(page, events) {
      this.page = page;
      this.events = events;
      this.path = page + "-live.ipynb";
      this.server = null;
      this.session = null;
      this.generation = 0; // of the session; what an older one still reports is of no interest
      this.unreached = false;
      this.asking = false; // busy with the page's own question, which the reader did not ask
    }

    // What Thebe needs to know. An empty token: the cookie is the login, and Thebe would make one up otherwise.
    async prepare() {
      const live = await findServer();
      await loadThebe();
      return {
        useBinder: false,
        requestKernel: false,
        mountStatusWidget: false,
        mountActivateWidget: false,
        mountRunButton: false,
        mountRunAllButton: false,
        mountRestartButton: false,
        mountRestartAllButton: false,
        mathjaxUrl: "",
        serverSettings: { baseUrl: live.baseUrl, wsUrl: live.baseUrl.replace(/^http/, "ws"), token: "", appendToken: true },
        kernelOptions: { kernelName: live.kernelName, path: this.path },
      };
    }

    // Start the session, or join the one this page has already; true when it was there before.
    async connect(opened) {
      await findServer();
      // A Thebe server that could not be reached once stays so; a second try needs another.
      if (this.unreached) opened.server = again(opened.server);
      this.unreached = true;
      const { server, notebook } = opened;
      this.server = server;
      const slow = "The kernel did not start within " + START_SECONDS + " seconds.";
      let before;
      let session;
      try {
        await within(server.ready, START_SECONDS, slow);
        this.unreached = false;
        before = await this.isRunning();
        session = await within(server.startNewSession(notebook.rendermime), START_SECONDS, slow);
        await within(connected(session.kernel), START_SECONDS, slow);
      } catch (error) {
        if (error instanceof Trouble) throw error;
        throw new Trouble("The kernel could not be started: " + (error && error.message ? error.message : error) + ".");
      }
      this.session = session;
      notebook.attachSession(session);
      this.watch(session);
      return before;
    }

    async isRunning() {
      const base = this.server.config.serverSettings.baseUrl;
      const answer = await fetch(new URL("api/sessions", base), { headers: headers(), credentials: "same-origin" });
      if (!answer.ok) return false;
      return (await answer.json()).some((session) => session.path === this.path);
    }

    watch(session) {
      const mine = ++this.generation;
      const current = () => mine === this.generation;
      const kernel = session.kernel;
      const gone = () => {
        if (!current()) return;
        this.generation += 1;
        this.session = null;
        this.events.lost("The kernel is gone: it was shut down, unused for too long or ended by an error. Its variables are lost.");
      };
      kernel.disposed.connect(gone);
      kernel.statusChanged.connect((_, status) => {
        if (!current()) return;
        if (status === "dead") gone();
        else this.events.changed(status);
      });
      kernel.connectionStatusChanged.connect((_, status) => {
        if (!current()) return;
        if (status === "connected") this.events.changed(kernel.status);
        else this.events.changed("unreachable");
      });
    }

    // The name of the device that torch has in this kernel; "" when it cannot be told.
    async device() {
      const kernel = this.session && this.session.kernel;
      if (!kernel) return "";
      const request = { code: "pass", silent: true, store_history: false, user_expressions: { device: DEVICE } };
      try {
        const future = kernel.requestExecute(request, true);
        // Comes before the kernel's own signal of the same change.
        future.onIOPub = ({ header, content }) => {
          if (header.msg_type === "status") this.asking = content.execution_state === "busy";
        };
        const reply = await future.done;
        return reply.content.user_expressions.device.data["text/plain"].replace(/^['"]|['"]$/g, "");
      } catch (error) {
        return "";
      } finally {
        this.asking = false;
      }
    }

    interrupt() {
      return this.session.kernel.interrupt();
    }

    restart() {
      return this.session.kernel.restart();
    }

    async stop() {
      const session = this.session;
      this.generation += 1; // what follows is no loss
      this.session = null;
      if (session) await session.shutdown();
    }
  }

  window.prunelab = Object.assign(window.prunelab || {}, { PageKernel, Trouble });
})();
