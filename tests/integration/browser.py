"""Pages in headless Chromium, that of a router above all."""

import shutil

from mesh import HOST, PATIENCE
from playwright.sync_api import sync_playwright

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
LAPTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
PATIENCE_MS = PATIENCE * 1000


class Browser:
    """Use as a context manager."""

    def __enter__(self):
        program = shutil.which("chromium")
        assert program, "no program `chromium` here; deploy/packages.sh install --tests installs it"
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=program, args=FLAGS)
        return self

    def __exit__(self, *exception):
        self._browser.close()
        self._playwright.stop()

    def visit(self, address):
        """A page of any address, without the checks of a Console; it goes with the browser."""
        page = self._browser.new_page(viewport=LAPTOP)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        return page

    def open(self, router, path="", size=None, **options):
        """A Console of this router."""
        context = self._browser.new_context(viewport=size or LAPTOP, **options)
        return Console(context, f"http://{HOST}:{router.metrics_port}/", path)


class Console:
    """One page. Use as a context manager: at its end no error was logged, and nothing but the router was asked."""

    def __init__(self, context, address, path):
        self._context = context
        self.address = address
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.problems = []
        self.foreign = []
        # What the test provokes, as part of what the browser says of it.
        self.expected = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", self._look)
        self.page.goto(address + path)
        self.page.wait_for_selector("h1")

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _look(self, request):
        if not request.url.startswith(self.address):
            self.foreign.append(request.url)

    def go(self, path):
        """Follows an address of this page, and waits for its heading."""
        self.page.goto(self.address + path)
        self.page.wait_for_selector("h1")

    def find(self, selector, text=None):
        return self.page.locator(selector, has_text=text) if text else self.page.locator(selector)

    def see(self, selector, text=None):
        """Waits until it is visible; the first of them."""
        found = self.find(selector, text).first
        found.wait_for()
        return found

    def press_until(self, key, selector, most):
        """Presses a key until what has the focus matches."""
        for _ in range(most):
            self.page.keyboard.press(key)
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} does not get the focus by {most} times {key}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self._context.close()
        if kind is not None:
            print(f"--- the browser said: {self.problems}")
        else:
            problems = [
                each for each in self.problems if not any(part in each for part in self.expected)
            ]
            assert not problems, problems
            assert not self.foreign, self.foreign
