#!/usr/bin/env python3
"""Make samples/: the documents that the tests, the docs and the benchmark read, and what truly stands in them.

    python scripts/make_samples.py [--out samples] [--font ROLE=FILE ...]

Each page is data: regions, each with its blocks in reading order. The drawing and `truth.json` both come from that
data, so the two cannot drift. The same fonts and library versions give the same bytes.

Needs: reportlab, pillow, pypdfium2; the fonts DejaVu Serif, DejaVu Sans and WenQuanYi Micro Hei.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import pypdfium2
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from reportlab import rl_config
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Frame, Paragraph, Spacer, Table, TableStyle
from reportlab.platypus import Image as PlacedImage

PAGE_WIDTH, PAGE_HEIGHT = A4
INK, ACCENT, TABLE_HEAD = HexColor("#000000"), HexColor("#1f3a68"), HexColor("#e4e9f2")

# role → fontconfig pattern; the family in it is checked, because fc-match answers with some font even for an unknown one
FONTS = {
    "serif": "DejaVu Serif:style=Book",
    "serif-bold": "DejaVu Serif:style=Bold",
    "sans": "DejaVu Sans:style=Book",
    "sans-bold": "DejaVu Sans:style=Bold",
    "chinese": "WenQuanYi Micro Hei",
}
DEBIAN_PACKAGES = {"DejaVu": "fonts-dejavu", "WenQuanYi": "fonts-wqy-microhei"}


class SampleError(Exception):
    """What stops the making: one line, and one line on what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Block:
    """One piece of a page. `figure` is drawn but has no text, so it is not part of the truth."""

    kind: str  # title, heading, text, caption, header, footer, table, figure
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    centred: bool = False

    def truth(self) -> dict[str, object]:
        if self.kind == "table":
            return {"kind": "table", "rows": [list(row) for row in self.rows]}
        return {"kind": self.kind, "text": " ".join(self.text.split())}


@dataclass(frozen=True)
class Region:
    """A rectangle of the page, in points from the top left corner, and the blocks that flow down in it."""

    left: float
    top: float
    width: float
    height: float
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Look:
    """The fonts and measures of one document."""

    font: str
    bold: str
    size: float
    title_size: float
    column_shares: tuple[float, ...] = ()  # widths of the table's columns as shares of the region
    justified: bool = False
    centred_title: bool = False
    chinese: bool = False
    numbers_right: bool = False
    title_colour: Color = INK


@dataclass(frozen=True)
class Page:
    look: Look
    regions: tuple[Region, ...]

    def truth(self) -> dict[str, object]:
        blocks = [block for region in self.regions for block in region.blocks if block.kind != "figure"]
        return {"blocks": [block.truth() for block in blocks]}


title, heading, text = (partial(Block, kind) for kind in ("title", "heading", "text"))


def table(*rows: str) -> Block:
    """Rows as they are read aloud: cells are parted by `|`."""
    return Block("table", rows=tuple(tuple(cell.strip() for cell in row.split("|")) for row in rows))


def paper() -> Page:
    margin, gap, body_top = 54.0, 20.0, 204.0
    column = (PAGE_WIDTH - 2 * margin - gap) / 2
    front = (
        title("What Small Harbours Still Keep on Paper"),
        Block("text", "Ada Marlow and Lin Sample, Institute of Coastal Records", centred=True),
        heading("Abstract"),
        text("We visited eleven harbour offices and counted the forms that are still filled in by hand. Most of them "
             "record arrivals, fees and repairs. We describe how the sheets were scanned, how long the work took, and "
             "which kinds of page gave the staff the most trouble."),
    )
    left = (
        heading("1. Introduction"),
        text("A harbour office is a quiet place in winter, and its shelves show how many years it has been open. The "
             "oldest folder that we found began in 1931 with a list of herring boats and the names of their owners."),
        text("Nobody reads these folders for pleasure. They are opened when an insurer asks about a collision, or when a "
             "family wants to know which ship brought a grandfather home. Each such search takes half a day."),
        heading("2. The Visits"),
        text("Between April and June two of us travelled along the coast by train. At every stop we asked for one shelf, "
             "measured its length with a tape, and took every fiftieth sheet out for a closer look."),
        Block("figure"),
        Block("caption", "Figure 1. The mole on a calm day."),
        text("The staff were generous with tea and with their time. In three places a retired clerk came back for the "
             "morning to explain old abbreviations, which no written guide had ever listed."),
    )
    right = (
        heading("3. Results"),
        text("Ruled ledgers were by far the easiest pages. Their lines are straight, the columns have printed headings, "
             "and a clerk who ran out of space turned the leaf instead of writing in the margin."),
        Block("caption", "Table 1. Sheets sampled in four of the offices."),
        table("Office | Shelf | Sheets | Legible",
              "Northgate | 4.2 m | 318 | 96%",
              "Saltmarsh | 2.7 m | 205 | 91%",
              "Owl Point | 6.5 m | 482 | 88%",
              "Ferrybank | 1.9 m | 144 | 97%"),
        text("Letters were harder. Carbon copies from the 1950s have faded to a pale violet, and the typewriter at Owl "
             "Point had lost the lower half of its letter g, so that many words look as if they were cut."),
        heading("4. Discussion"),
        text("Speed mattered less than we had expected. A scanner takes four seconds for a sheet, yet removing rusty "
             "staples takes twenty. Any plan that counts only machine time will be wrong by a factor of five."),
        text("Order mattered more. Two folders had been dropped at some point and put together again in haste; without "
             "page numbers, only the tides mentioned in the entries told us which day came first."),
        heading("5. Conclusion"),
        text("Paper lasts, provided that somebody can find it. We recommend that each office scans one shelf a year, "
             "beginning with the folders that are asked for most, and keeps the originals in a dry room."),
    )
    return Page(
        Look("serif", "serif-bold", 9.6, 18, (.34, .2, .22, .24), justified=True, centred_title=True),
        (
            Region(margin, 28, PAGE_WIDTH - 2 * margin, 16, (Block("header", "Coastal Records Quarterly, Volume 7"),)),
            Region(margin + 20, 62, PAGE_WIDTH - 2 * margin - 40, 136, front),
            Region(margin, body_top, column, 586, left),
            Region(margin + column + gap, body_top, column, 586, right),
            Region(margin, 802, PAGE_WIDTH - 2 * margin, 16, (Block("footer", "17"),)),
        ),
    )


def invoice() -> Page:
    margin = 62.0
    width = PAGE_WIDTH - 2 * margin
    body = (
        text("Thank you for your order of 3 November. The goods left our warehouse two days later and were signed for at "
             "your front desk. One box of envelopes is still missing; it will follow free of charge."),
        heading("Goods delivered"),
        table("Article | Quantity | Unit price | Amount",
              "White paper, A4, 500 sheets | 12 | 4.50 | 54.00",
              "Toner cartridge, black | 2 | 61.20 | 122.40",
              "Desk stapler | 3 | 9.99 | 29.97",
              "Ring binder, blue | 20 | 1.75 | 35.00",
              "| | Total | 241.37"),
        heading("Notes"),
        text("Please transfer the total within thirty days and give the invoice number as the reference. Prices are in "
             "euros and include value added tax of 20 per cent."),
        text("Unopened articles can be returned until the end of the year. Call our service line on 0555 014 882 and a "
             "driver will collect them on the next working day."),
    )
    return Page(
        Look("sans", "sans-bold", 11, 23, (.43, .17, .2, .2), numbers_right=True, title_colour=ACCENT),
        (
            Region(margin, 62, width, 40, (title("Invoice 2026-0117"),)),
            Region(margin, 122, width / 2 - 12, 66, (
                text("Seller: Brightwater Office Supplies\n12 Harbour Street\n40210 Newtown"),)),
            Region(margin + width / 2 + 12, 122, width / 2 - 12, 66, (
                text("Buyer: Quince and Daughters\nMill Lane 7, second floor\n51388 Oakfield"),)),
            Region(margin, 198, width, 560, body),
        ),
    )


def chinese() -> Page:
    margin = 66.0
    body = (
        title("海滨图书馆读者手册"),
        heading("一、开放时间"),
        text("本馆每周二至周日开放，上午九点开门，晚上八点闭馆。每逢周一整理书架，不接待读者。遇到台风或者大雪，开放时间会"
             "有变化，请在出门之前查看门口的通知，或者拨打服务台的电话。"),
        heading("二、借阅规则"),
        text("读者凭借书证可以同时借阅六册图书，期限为三十天。如果没有其他人预约，还可以续借一次。逾期不还的，每册每天收取"
             "一角钱的费用；书页破损或者遗失，应当按照原价赔偿。"),
        table("楼层 | 藏书类别 | 册数 | 负责人",
              "一层 | 儿童读物 | 8650 | 周晓梅",
              "二层 | 文学小说 | 21300 | 陈立明",
              "三层 | 科学技术 | 15740 | 何志远",
              "四层 | 地方史料 | 3280 | 林雨桐"),
        heading("三、阅览室须知"),
        text("阅览室内请保持安静，不要携带食物和有颜色的饮料。窗边的座位可以使用笔记本电脑，插座在桌子下面。离开超过半个小"
             "时，请收好个人物品，把座位让给别人。"),
    )
    return Page(
        Look("chinese", "chinese", 12.5, 25, (.2, .3, .25, .25), centred_title=True, chinese=True),
        (Region(margin, 74, PAGE_WIDTH - 2 * margin, 690, body),),
    )


TWELVE = (
    ("One", "The Morning Ferry",
     "The first ferry leaves at ten past six, when the street lamps are still lit. Two bakers and a postman are usually "
     "the only passengers. They stand near the engine, where it is warm."),
    ("Two", "The Weather Mast",
     "A steel mast behind the school carries three instruments. Every hour a pupil writes down the wind, the rain and the "
     "temperature. The longest gap in the notebook is nine days, during a holiday."),
    ("Three", "The Apple Garden",
     "Forty trees grow on the slope above the chapel. Their fruit is small and sour, but it keeps until March in a cool "
     "cellar."),
    ("Four", "The Broken Clock",
     "The clock on the town hall has shown twenty to four since a storm in 1987. Visitors think that it is a joke. The "
     "mayor says that a repair would cost more than a new bus."),
    ("Five", "The Glass Workshop",
     "Sand from the southern beach melts into pale green glass. The workshop makes bowls in summer and window panes in "
     "winter. A cracked piece goes back into the furnace."),
    ("Six", "The Night Train",
     "Once a week a train with blue sleeping cars stops for four minutes. Nobody in town has ever bought a ticket for it, "
     "yet the platform is always full of people who wave."),
    ("Seven", "The Lost Umbrella",
     "An umbrella with a duck's head handle waits in the office of lost things. It was found on a bench after the spring "
     "fair. Seven people have claimed it, and none could name its colour."),
    ("Eight", "The Stone Bridge",
     "Masons from the valley built the bridge with nine arches and no mortar. Lorries must use the road by the mill, "
     "because the parapet is too narrow for them."),
    ("Nine", "The Choir",
     "Rehearsals begin on Thursday evening as soon as the cows are milked. There are eleven sopranos, six altos and a "
     "single bass. He has promised not to catch a cold before Christmas."),
    ("Ten", "The Map Maker",
     "Her maps show footpaths that no satellite can see. She walks each of them twice, once in either direction, and "
     "counts her steps with beads on a string."),
    ("Eleven", "The Beekeeper",
     "White hives stand in a row along the railway bank. Trains do not disturb the bees, but they dislike the smell of "
     "fresh paint. Honey from the lime trees is ready in July."),
    ("Twelve", "The Last Page",
     "Here the account of our small town comes to an end. Whoever wants to know more should take the early boat, bring "
     "strong shoes, and ask for soup at the inn."),
)


def twelve_pages() -> list[Page]:
    look = Look("sans", "sans-bold", 13, 17)
    return [
        Page(look, (Region(72, 80, PAGE_WIDTH - 144, 680, (
            title(f"Page {word} ({number} of 12): {name}"), text(words))),))
        for number, (word, name, words) in enumerate(TWELVE, start=1)
    ]


def letter() -> Page:
    blocks = (
        title("A Report on the Lighthouse Stairs"),
        text("To the members of the harbour board. At your request I climbed the lighthouse on the ninth of October and "
             "examined all one hundred and forty-two steps. The weather was dry and the lamp was off during the whole of "
             "my visit, so that I could work without a shade."),
        heading("Condition"),
        text("The lower flight is sound. Its granite treads are worn by about a finger's width in the middle, which is "
             "little for their age. Above the first landing the steps are made of iron, and here I counted five that move "
             "under the foot and two whose bolts have rusted through."),
        text("The handrail gives more cause for worry. Between the second and the third window it is fixed to the wall by "
             "a single bracket. A visitor who stumbles would pull it out of the plaster, and the gap beside the staircase "
             "is wide enough for a child to fall through."),
        heading("What should be done"),
        text("I propose to close the tower to the public until the spring. A smith from the village can replace the seven "
             "bad treads in about two weeks, and has offered to do so for 2,350 crowns, material included. New brackets "
             "for the rail should be ordered at the same time."),
        text("The keeper must still reach the lamp every evening. Until the work is finished he ought to carry a rope, and "
             "a second person should wait at the foot of the stairs. I have spoken with both of them, and they agree to "
             "this arrangement."),
        text("I shall come again when the smith has gone, and will send you a short note on what I find. With kind "
             "regards, Henrik Vale, surveyor of public buildings."),
    )
    return Page(Look("serif", "serif-bold", 12, 20), (Region(76, 84, PAGE_WIDTH - 152, 690, blocks),))


def style_of(block: Block, look: Look) -> ParagraphStyle:
    """Sizes and spaces are shares of the body size, so that one table serves every document."""
    kind, size, wrap = block.kind, look.size, "CJK" if look.chinese else None
    leading = 1.65 if look.chinese else 1.36
    if kind == "title":
        return ParagraphStyle(kind, fontName=look.bold, fontSize=look.title_size, leading=look.title_size * 1.3,
                              textColor=look.title_colour, wordWrap=wrap,
                              alignment=TA_CENTER if look.centred_title else 0, spaceAfter=size * .9)
    if kind == "heading":
        return ParagraphStyle(kind, fontName=look.bold, fontSize=size * 1.27, leading=size * 1.7, wordWrap=wrap,
                              spaceBefore=size * .8, spaceAfter=size * .4)
    if kind in ("caption", "header", "footer"):
        alignment = TA_RIGHT if kind == "header" else TA_CENTER
        return ParagraphStyle(kind, fontName=look.font, fontSize=size * .9, leading=size * 1.2, alignment=alignment,
                              spaceBefore=size * .4, spaceAfter=size * .7)
    return ParagraphStyle(kind, fontName=look.font, fontSize=size, leading=size * leading, wordWrap=wrap,
                          alignment=TA_CENTER if block.centred else TA_JUSTIFY if look.justified else 0,
                          spaceAfter=size * .7,
                          firstLineIndent=2 * size if look.chinese else 0)


def flowables(block: Block, look: Look, width: float) -> list[Flowable]:
    if block.kind == "table":
        return [drawn_table(block, look, width), Spacer(1, look.size)]
    if block.kind == "figure":
        return [PlacedImage(harbour_picture(), width * .94, width * .94 * .58), Spacer(1, look.size * .3)]
    return [Paragraph(escape(block.text).replace("\n", "<br/>"), style_of(block, look))]


def drawn_table(block: Block, look: Look, width: float) -> Table:
    drawn = Table(block.rows, colWidths=[share * width for share in look.column_shares], rowHeights=look.size * 2)
    drawn.setStyle(TableStyle([
        ("GRID", (0, 0), (-1, -1), .7, INK),
        ("BACKGROUND", (0, 0), (-1, 0), TABLE_HEAD),
        ("FONT", (0, 0), (-1, -1), look.font, look.size * .95),
        ("FONT", (0, 0), (-1, 0), look.bold, look.size * .95),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT" if look.numbers_right else "CENTER"),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
    ]))
    return drawn


def harbour_picture() -> io.BytesIO:
    """A sky, a sea, a mole with its light, and boats: nothing in it that a reader could take for text."""
    width, height, chance = 480, 278, random.Random(3)
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        sky = y < 140
        draw.line([(0, y), (width, y)],
                  fill=(120 + y // 2, 165 + y // 3, 225) if sky else (40, 105 - y // 6, 130 - y // 6))
    draw.ellipse([370, 24, 416, 70], fill=(255, 240, 180))
    draw.polygon([(0, 140), (0, 96), (90, 70), (190, 118), (260, 140)], fill=(86, 112, 92))
    draw.polygon([(240, 160), (480, 138), (480, 162), (240, 172)], fill=(120, 112, 104))
    draw.polygon([(306, 154), (312, 82), (330, 82), (336, 154)], fill=(238, 236, 230))
    draw.rectangle([311, 100, 331, 116], fill=(180, 50, 44))
    draw.rectangle([313, 70, 329, 82], fill=(90, 40, 40))
    for _ in range(5):
        x, y = chance.randint(20, 220), chance.randint(170, 250)
        draw.polygon([(x - 18, y), (x + 18, y), (x + 11, y + 10), (x - 11, y + 10)], fill=(92, 52, 36))
        draw.polygon([(x, y - 34), (x, y - 3), (x + 15, y - 3)], fill=(246, 243, 234))
    out = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(.7)).save(out, "JPEG", quality=82)
    return out


def pdf_of(pages: Sequence[Page], name: str) -> bytes:
    """Draw the pages. A region that is too small is an error, because its last words would be missing silently."""
    out = io.BytesIO()
    # invariant: no date and no random identifier in the file
    canvas = Canvas(out, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(name)
    canvas.setAuthor("PaddleOCR-VL Kit")
    for page in pages:
        for region in page.regions:
            rest = [part for block in region.blocks for part in flowables(block, page.look, region.width)]
            bottom = PAGE_HEIGHT - region.top - region.height
            Frame(region.left, bottom, region.width, region.height, 0, 0, 0, 0).addFromList(rest, canvas)
            if rest:
                raise SampleError(f"{name}: {len(rest)} blocks do not fit into the region at {region.left:.0f}, "
                                  f"{region.top:.0f}", "make the region higher, or the text shorter")
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def picture_of(pdf: bytes, dpi: int) -> Image.Image:
    with pypdfium2.PdfDocument(pdf) as document:
        picture: Image.Image = document[0].render(scale=dpi / 72).to_pil()
        return picture.convert("RGB")


def png_of(page: Page, name: str, dpi: int) -> bytes:
    """A page of text needs no more than 16 colours, and is then small enough to live in git."""
    out = io.BytesIO()
    few = picture_of(pdf_of([page], name), dpi).quantize(16, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True, dpi=(dpi, dpi))
    return out.getvalue()


def scan_of(page: Page, name: str, dpi: int = 150) -> bytes:
    """What a cheap office scanner makes of the page: turned by 1.2 degrees, soft, noisy, darker to one corner."""
    sheet = picture_of(pdf_of([page], name), dpi).convert("L")
    sheet = sheet.rotate(1.2, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(.6))
    shade = Image.linear_gradient("L").rotate(60).crop((48, 48, 208, 208)).resize(sheet.size, Image.Resampling.BICUBIC)
    light = shade.point(lambda value: 205 + value * 45 // 255)
    grain_bytes = random.Random(7).randbytes(sheet.width * sheet.height)
    grain = Image.frombytes("L", sheet.size, grain_bytes).point(lambda value: value * 28 // 255)
    # the ink of a scan is never black: lift it before the light is laid on
    lit = ImageChops.multiply(sheet.point(lambda value: 38 + value * 217 // 255), light)
    out = io.BytesIO()
    ImageChops.add(lit, grain, offset=-14).save(out, "JPEG", quality=72, dpi=(dpi, dpi))
    return out.getvalue()


def find_font(pattern: str) -> Path:
    """The file fontconfig has for the pattern, or an error that names the package to install."""
    family = pattern.split(":")[0]
    package = next(package for word, package in DEBIAN_PACKAGES.items() if family.startswith(word))
    hint = f"install it (Debian and Ubuntu: apt-get install fontconfig {package}), or give its file with --font"
    try:
        answer = subprocess.run(["fc-match", "-f", "%{family}\n%{file}", pattern],
                                capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SampleError(f"cannot ask fontconfig for the font {family}: {error}", hint) from error
    families, _, file = answer.partition("\n")
    if family not in families.split(","):
        raise SampleError(f"the font {family} is not installed", hint)
    return Path(file)


def register_fonts(given: dict[str, Path]) -> None:
    for role, pattern in FONTS.items():
        file = given.get(role) or find_font(pattern)
        try:
            pdfmetrics.registerFont(TTFont(role, str(file)))
        except Exception as error:  # reportlab raises its own, struct's and the system's errors for a bad file
            raise SampleError(f"cannot use {file} as the font '{role}': {error}",
                              "give a TrueType file (.ttf or .ttc) with --font") from error


def font_option(value: str) -> tuple[str, Path]:
    role, _, file = value.partition("=")
    if role not in FONTS or not file:
        raise argparse.ArgumentTypeError(f"'{value}' is not ROLE=FILE with a role of {', '.join(FONTS)}")
    return role, Path(file)


def make(folder: Path) -> dict[str, int]:
    """Write every sample and truth.json; returns the sizes."""
    twelve = twelve_pages()
    samples: dict[str, tuple[Sequence[Page], bytes]] = {
        "paper.pdf": ([paper()], pdf_of([paper()], "paper")),
        "invoice.png": ([invoice()], png_of(invoice(), "invoice", 160)),
        "chinese.png": ([chinese()], png_of(chinese(), "chinese", 160)),
        "twelve-pages.pdf": (twelve, pdf_of(twelve, "twelve pages")),
        "scan.jpg": ([letter()], scan_of(letter(), "scan")),
    }
    truth = {name: {"pages": [page.truth() for page in pages]} for name, (pages, _) in samples.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, content) in samples.items():
        (folder / name).write_bytes(content)
    (folder / "truth.json").write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {name: len(content) for name, (_, content) in samples.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the sample documents and what truly stands in them.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "samples",
                        help="folder to write to (default: samples/ of this repository)")
    parser.add_argument("--font", type=font_option, action="append", default=[], metavar="ROLE=FILE",
                        help=f"a font file instead of fontconfig's answer; roles: {', '.join(FONTS)}")
    options = parser.parse_args(arguments)
    rl_config.useA85 = 0  # binary streams: a fifth smaller than reportlab's text form
    try:
        register_fonts(dict(options.font))
        sizes = make(options.out)
    except SampleError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    for name, size in sizes.items():
        print(f"{options.out / name}  {size / 1000:.1f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
