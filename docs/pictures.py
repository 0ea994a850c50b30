"""Make the pictures of the README from a real demo campaign: `make pictures`.

The newest finished campaign below results/ is shown (PICTURES_ARGS="--out DIR" for another folder); where there is
none, the demo is run first. The lab is started for the dashboard's picture and stopped again. Its power is emulated: a
picture without that word in it is not written.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from orchestrator.cli.api import find_api, sign_in_link
from orchestrator.cli.lab import running_lab
from orchestrator.reports.summary import summary_markdown
from orchestrator.results.read_model import load_results

PICTURES = Path(__file__).parent / "pictures"
LARGEST_BYTES = 150_000
_COLOURS = 128
_SIZE = {"width": 1280, "height": 800}
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def finished_campaign(out: Path) -> Path | None:
    """Return the newest campaign whose results are whole, None without one."""
    found = [path.parent for path in out.glob("*/epi_curve.png") if (path.parent / "campaign.json").is_file()]
    return max(found, key=lambda path: (path / "epi_curve.png").stat().st_mtime, default=None)


def write_small(picture: bytes, target: Path) -> None:
    """Write a PNG with few colours, which pictures of charts and text do not miss."""
    with Image.open(io.BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        small = io.BytesIO()
        few.save(small, "PNG", optimize=True)
    if small.tell() > LARGEST_BYTES:
        sys.exit(f"error: {target.name} has {small.tell()} bytes, a README wants at most {LARGEST_BYTES}")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(small.getvalue())
    sys.stdout.write(f"{target}: {small.tell()} bytes\n")


def dashboard(out: Path) -> bytes:
    """Return the dashboard's view of the newest campaign as Chromium draws it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("error: Chromium is not installed; do: sudo apt-get install -y chromium")
    with running_lab(out, None), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        page = browser.new_page(viewport=_SIZE, color_scheme="light")  # type: ignore[arg-type]
        page.set_default_timeout(30_000)
        page.goto(sign_in_link(find_api(out, None, None)))
        page.evaluate("location.hash = '#/campaign'")
        page.locator(".view svg").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1500)
        if "emulated" not in page.locator("body").inner_text().lower():
            sys.exit("error: the dashboard does not say that its power is emulated")
        picture = page.screenshot()
        browser.close()
        return picture


def main() -> None:
    """Write docs/pictures/epi_curve.png and docs/pictures/dashboard.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the lab's results")
    out = parser.parse_args().out
    if finished_campaign(out) is None:
        subprocess.run([Path(sys.executable).with_name("epi"), "demo", "--out", out], check=True)
    campaign = finished_campaign(out)
    if campaign is None:
        sys.exit(f"error: no finished campaign below {out}")
    if "emulated" not in summary_markdown(load_results(campaign)):  # the curve's own caption says so too
        sys.exit(f"error: {campaign} is not the demo's: its power was measured")
    write_small((campaign / "epi_curve.png").read_bytes(), PICTURES / "epi_curve.png")
    write_small(dashboard(out), PICTURES / "dashboard.png")


if __name__ == "__main__":
    main()
