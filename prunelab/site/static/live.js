// Live code: one kernel for this page, a bar that says how it is, and a way back from whatever goes wrong.
(() => {
  "use strict";

  const meta = document.querySelector('meta[name="prunelab-page"]');
  const { PageKernel, cells: Cells } = window.prunelab;

  const BUSY = new Set(["busy"]);
  const SHORT = 200; // milliseconds; a page that opens a kernel makes it busy several times for a few
  const STARTING = new Set(["starting", "restarting", "autorestarting", "unknown"]);

  class Bar {
    constructor(actions) {
      this.element = document.createElement("section");
      this.element.className = "prune-live-bar";
      this.element.setAttribute("aria-label", "Live code");
      this.element.hidden = true;
      this.text = Object.assign(document.createElement("p"), { className: "prune-live-status" });
      this.text.setAttribute("role", "status"); // read out politely when it changes
      this.device = Object.assign(document.createElement("p"), { className: "prune-live-device" });
      const row = Object.assign(document.createElement("div"), { className: "prune-live-actions" });
      this.buttons = {};
      for (const [name, [text, title, action]] of Object.entries(actions)) {
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, title });
        button.addEventListener("click", action);
        row.append(button);
        this.buttons[name] = button;
      }
      this.element.append(this.text, this.device, row);
      document.body.append(this.element);
    }

    // Show one state: its text, its colour, and only the buttons that do something in it.
    show(state, text, names) {
      this.element.hidden = false;
      this.element.dataset.state = state;
      document.documentElement.dataset.pruneLive = state;
      // Sliders of a live cell that nobody answers must not move; those of the build need no kernel.
      document.querySelectorAll(".prune-live-output .prunelab-explore").forEach((explore) => {
        if (!explore.closest(".prunelab-static")) explore.inert = state === "trouble";
      });
      if (this.text.textContent !== text) this.text.textContent = text;
      const focused = document.activeElement;
      for (const [name, button] of Object.entries(this.buttons)) button.hidden = !names.includes(name);
      // A button that vanishes under the reader's fingers hands the focus to the first one left.
      if (focused && focused.hidden && this.element.contains(focused)) {
        const next = Object.values(this.buttons).find((button) => !button.hidden);
        if (next) next.focus();
      }
    }
  }

  class Live {
    constructor(page) {
      this.page = page;
      this.kernel = new PageKernel(page, {
        changed: (status) => this.changed(status),
        lost: (message) => this.fail(message, "retry"),
      });
      this.opened = null; // { cells, server, notebook } once the editors are there
      this.working = false; // a start or restart is under way
      this.runningAll = false;
      this.soon = 0; // the timer after which the kernel is said to be busy
      this.bar = new Bar({
        runAll: ["Run all", "Run every cell, from the top", () => this.runAll()],
        interrupt: ["Interrupt", "Stop what is running; variables stay", () => this.interrupt()],
        restart: ["Restart", "Start the kernel anew; variables are lost", () => this.restart()],
        stop: ["Stop", "Shut the kernel down and free its memory", () => this.stop()],
        retry: ["Reconnect", "Try again", () => this.start()],
        login: ["Log in", "Load this page again, which asks for a login", () => location.reload()],
        close: ["Close", "Hide this message", () => this.close()],
      });
    }

    // From whatever state: get a kernel. Safe to call twice.
    async start() {
      if (this.working) return;
      if (this.kernel.session) {
        this.bar.buttons.runAll.focus();
        return;
      }
      this.working = true;
      this.bar.show("connecting", "Starting a kernel for this page…", []);
      try {
        if (!this.opened) {
          const options = await this.kernel.prepare();
          this.opened = await Cells.open(options, { run: (cell) => this.run(cell) });
        }
        const before = await this.kernel.connect(this.opened);
        const found = "Live again, on the kernel this page had before: its variables are still there, edits to cells are not.";
        this.ready(before ? found : "Live. The kernel is new: press Run all, or run the cells from the top. Cells can be edited.");
        this.showDevice();
      } catch (error) {
        console.warn("prunelab:", error);
        this.fail(error.message || String(error), error.way || "retry");
      } finally {
        this.working = false;
      }
    }

    async showDevice() {
      this.bar.device.textContent = "Finding the kernel’s device…";
      const name = await this.kernel.device();
      this.bar.device.textContent = name ? "Runs on " + name : "";
      this.bar.element.dataset.device = name;
    }

    ready(text) {
      clearTimeout(this.soon);
      this.idleText = text || this.idleText;
      this.bar.show("ready", this.idleText, ["runAll", "restart", "stop"]);
    }

    busy() {
      if (this.working || !this.kernel.session) return;
      this.bar.show("busy", this.busyText || "Running…", ["interrupt", "restart", "stop"]);
    }

    fail(message, way, label = "Reconnect") {
      this.runningAll = false;
      this.bar.buttons.retry.textContent = label;
      this.bar.device.textContent = "";
      this.bar.show("trouble", message, [way, "close"]);
    }

    close() {
      this.bar.element.hidden = true;
      const button = document.querySelector(".prune-live-start");
      if (button) button.focus();
    }

    changed(status) {
      clearTimeout(this.soon);
      if (this.working || !this.kernel.session) return;
      if (status === "unreachable") {
        this.bar.show("unreachable", "The connection is lost; trying to get it back…", ["retry"]);
        this.checkServer();
      } else if (BUSY.has(status)) {
        // Importing torch for the device takes seconds: "Run all" must not vanish under the pointer meanwhile.
        if (!this.kernel.asking) this.soon = setTimeout(() => this.busy(), SHORT);
      } else if (STARTING.has(status)) this.bar.show("connecting", "The kernel is starting…", ["stop"]);
      else if (!this.runningAll) this.ready();
    }

    // Jupyter's own client retries for minutes. When the kernel or the login is gone there is nothing to wait for.
    async checkServer() {
      try {
        await this.kernel.prepare();
        if (await this.kernel.isRunning()) return;
        await this.kernel.stop();
        this.fail("The kernel is gone: it was shut down or unused for too long. Its variables are lost.", "retry");
      } catch (error) {
        if (error.way === "login") {
          await this.drop();
          this.fail(error.message, "login");
        } else if (this.kernel.session) {
          await this.drop();
          this.fail(error.message || String(error), "retry");
        }
      }
    }

    // Forget the session without asking the server, which does not answer.
    async drop() {
      const session = this.kernel.session;
      this.kernel.generation += 1;
      this.kernel.session = null;
      if (session) session.dispose();
    }

    async run(cell) {
      if (!this.kernel.session) {
        if (!this.working) this.bar.show("trouble", "There is no kernel to run this cell.", ["retry", "close"]);
        return false;
      }
      this.busyText = "Running cell " + cell.number + "…";
      if (this.bar.element.dataset.state === "ready") this.busy(); // at once, also behind the page's own question
      const good = await Cells.execute(cell);
      this.idleText = good ? "Cell " + cell.number + " finished." : "Cell " + cell.number + " ended with an error.";
      if (this.kernel.session && !this.runningAll) this.ready();
      return good;
    }

    async runAll() {
      if (this.runningAll) return;
      this.runningAll = true;
      // Solutions stay closed books until their reader opens and runs them.
      const cells = this.opened.cells.filter((cell) => !cell.solution);
      let text = "All " + cells.length + " cells finished.";
      try {
        for (const cell of cells) {
          if (!this.runningAll || !this.kernel.session) return;
          if (!(await this.run(cell))) {
            text = "Stopped at cell " + cell.number + ", which ended with an error.";
            cell.box.scrollIntoView({ block: "center" });
            break;
          }
        }
      } finally {
        this.runningAll = false;
      }
      if (this.kernel.session) this.ready(text);
    }

    async interrupt() {
      this.runningAll = false;
      await this.kernel.interrupt();
    }

    async restart() {
      this.runningAll = false;
      this.working = true;
      this.bar.show("connecting", "Restarting the kernel…", []);
      try {
        await this.kernel.restart();
        this.ready("The kernel is new: no variables yet. Run the cells from the top.");
      } catch (error) {
        this.fail("The kernel could not be restarted: " + (error.message || error), "retry");
      } finally {
        this.working = false;
      }
      this.showDevice();
    }

    async stop() {
      this.runningAll = false;
      this.working = true;
      try {
        await this.kernel.stop();
      } catch (error) {
        console.warn("prunelab:", error);
      } finally {
        this.working = false;
      }
      this.fail("The kernel is stopped and its memory free. What it printed stays.", "retry", "Start again");
    }
  }

  const live = meta ? new Live(meta.content) : null;
  window.prunelab.live = live;
  document.querySelectorAll(".prune-live-start").forEach((button) => {
    if (!live) return;
    button.hidden = false;
    button.addEventListener("click", () => live.start());
  });
})();
