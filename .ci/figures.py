"""Figures at home in both themes.

In the kernel, `register` makes every PNG of a matplotlib figure say where its photographs are (a tEXt chunk with the boxes of
its imshow images). From that, `both_themes` gives a page of the site two files per figure: the saved one and a dark one, whose
ground and ink follow the dark theme while its photographs stay as they are. A PNG without the chunk keeps its white ground.
"""
import base64
import hashlib
import html
import io
import json
import re
from pathlib import Path

CHUNK = 'photographs'
GROUND, INK = (34, 34, 34), (255, 255, 255)  # of the dark theme (darkly): its page and its text
PHONE = 360  # pixels for a figure on a phone; styles.css shows it at 70 % of its size at least, and a wider one scrolls


# --- in the kernel ------------------------------------------------------------------------------------------------

def photographs(fig):
    "Return the images that a figure shows, and its color bars of such images"
    axes = [ax for ax in fig.get_axes() if ax.get_visible()]
    images = [image for ax in axes for image in ax.get_images() if image.get_visible()]
    return images, [ax for ax in axes if getattr(getattr(ax, '_colorbar', None), 'mappable', None) in images]


def painted(images, color, draw):
    "Return the pixels of the figure with every image in one color"
    import numpy as np
    held = [image.get_array() for image in images]
    try:
        for image in images: image.set_data(np.full((1, 1, 3), color, 'uint8'))
        return np.asarray(open_png(draw()).convert('RGB')).astype(int)
    finally:
        for image, array in zip(images, held): image.set_data(array)


def print_with_boxes(fig, printed, fmt='png', bbox_inches='tight', base64=False, **kwargs):
    "Print a figure as IPython does (`printed` is its function), and write the boxes of its photographs into the PNG"
    import base64 as coding

    import numpy as np
    from matplotlib import rcParams
    if fmt != 'png' or bbox_inches != 'tight' or not (fig.axes or fig.lines): return printed(fig, fmt, bbox_inches, base64=base64, **kwargs)
    fig.draw_without_rendering()
    crop = fig.get_tightbbox().padded(rcParams['savefig.pad_inches'])
    draw = lambda: printed(fig, fmt, crop, base64=False, **kwargs)  # noqa: E731
    png = draw()
    width, height = open_png(png).size
    images, bars = photographs(fig)

    def pixels(extents):
        "Return a box of the canvas in pixels of the PNG, a little too large or too small"
        x0, y0, x1, y1 = (v/fig.dpi for v in extents)
        scale = width/crop.width
        box = [(x0 - crop.x0)*scale, height - (y1 - crop.y0)*scale, (x1 - crop.x0)*scale, height - (y0 - crop.y0)*scale]
        return [int(np.clip(round(v), 0, most)) for v, most in zip(box, (width, height)*2)]
    boxes = [pixels(ax.bbox.extents) for ax in bars]
    differs = (painted(images, (0, 255, 0), draw) != painted(images, (255, 0, 255), draw)).any(-1) if images else None
    for image in images:  # the exact box: where its color shows
        x0, y0, x1, y1 = (max(0, v - 2) if i < 2 else v + 2 for i, v in enumerate(pixels(image.get_window_extent().extents)))
        ys, xs = np.nonzero(differs[y0:y1, x0:x1])
        if len(xs): boxes.append([int(v) for v in (x0 + xs.min(), y0 + ys.min(), x0 + xs.max() + 1, y0 + ys.max() + 1)])
    png = with_boxes(png, boxes)
    return coding.b64encode(png).decode() if base64 else png


def register():
    "Make IPython print figures with the boxes of their photographs; call it before a notebook imports pyplot"
    from IPython.core import pylabtools
    printed = pylabtools.print_figure
    pylabtools.print_figure = lambda fig, fmt='png', bbox_inches='tight', base64=False, **kw: print_with_boxes(fig, printed, fmt, bbox_inches, base64, **kw)


# --- the chunk ----------------------------------------------------------------------------------------------------

def open_png(png):
    from PIL import Image
    return Image.open(io.BytesIO(png))


def saved(image, boxes=None, **options):
    "Return an image as PNG, with the chunk where boxes are known"
    from PIL.PngImagePlugin import PngInfo
    held, info = io.BytesIO(), PngInfo()
    if boxes is not None: info.add_text(CHUNK, json.dumps(boxes))
    image.save(held, 'PNG', pnginfo=info, optimize=True, **options)
    return held.getvalue()


def with_boxes(png, boxes): return saved(open_png(png), boxes)


def boxes_of(png):
    "Return the boxes of a PNG's photographs ([] for a chart), or None where the PNG does not say"
    text = getattr(open_png(png), 'text', {}).get(CHUNK)
    return None if text is None else json.loads(text)


def with_few_colors(png, most=20_000):
    "Reduce a large PNG to 192 colors: a quarter of the size, with hardly a visible difference; the dark picture adds its own to them"
    if len(png) <= most: return png
    from PIL import Image
    return saved(open_png(png).convert('RGB').quantize(192, method=Image.Quantize.MEDIANCUT), boxes_of(png))


# --- the dark picture ---------------------------------------------------------------------------------------------

TO_LMS = [[.4122214708, .5363325363, .0514459929], [.2119034982, .6806995451, .1073969566], [.0883024619, .2817188376, .6299787005]]
TO_LAB = [[.2104542553, .7936177850, -.0040720468], [1.9779984951, -2.4285922050, .4505937099], [.0259040371, .7827717662, -.8086757660]]


def oklab(rgb):
    import numpy as np
    rgb = np.asarray(rgb, float)/255
    linear = np.where(rgb <= .04045, rgb/12.92, ((rgb + .055)/1.055)**2.4)
    return np.cbrt(linear @ np.transpose(TO_LMS)) @ np.transpose(TO_LAB)


def from_oklab(lab):
    import numpy as np
    linear = ((lab @ np.linalg.inv(TO_LAB).T)**3 @ np.linalg.inv(TO_LMS).T).clip(0, 1)
    return (255*np.where(linear <= .0031308, linear*12.92, 1.055*linear**(1/2.4) - .055)).round().astype('uint8')


def turned(rgb):
    "Return colors of a light figure as the dark theme has them: white is the ground, black the ink, hues are kept"
    import numpy as np
    lab = oklab(rgb)
    ground, ink = oklab(GROUND)[0], oklab(INK)[0]
    colorful = ((np.hypot(lab[..., 1], lab[..., 2]) - .05)/.05).clip(0, 1)
    lab[..., 0] = np.maximum(ground + (1 - lab[..., 0])*(ink - ground), .6*colorful)  # orange does not turn to brown
    return from_oklab(lab)


def dark(png):
    "Return the dark picture of a PNG that says where its photographs are"
    import numpy as np
    from PIL import Image
    boxes, pixels = boxes_of(png), np.asarray(open_png(png).convert('RGB'))
    photo = np.zeros(pixels.shape[:2], bool)
    for x0, y0, x1, y1 in boxes: photo[y0:y1, x0:x1] = True
    picture = pixels.copy()
    taken = len(np.unique(pixels[photo], axis=0))
    colors, which = np.unique(pixels[~photo], axis=0, return_inverse=True)
    if len(colors): picture[~photo] = fewest(turned(colors)[which.reshape(-1)], 256 - taken)
    return saved(in_palette(Image.fromarray(picture)), boxes)


def fewest(pixels, most):
    "Return pixels in at most so many colors, where so many are left: the photographs need the rest of the palette"
    import numpy as np
    from PIL import Image
    strip = Image.fromarray(pixels[None])
    if most < 32 or strip.getcolors(most): return pixels
    return np.asarray(strip.quantize(most, method=Image.Quantize.MEDIANCUT).convert('RGB'))[0]


def in_palette(image):
    "Return an image of at most 256 colors with a palette, exactly as it was; any other as it is"
    import numpy as np
    from PIL import Image
    pixels = np.asarray(image)
    colors, which = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colors) > 256: return image
    small = Image.fromarray(which.reshape(pixels.shape[:2]).astype('uint8'), 'P')
    small.putpalette(colors.astype('uint8').tobytes())
    return small


# --- the page -----------------------------------------------------------------------------------------------------

IMAGE = re.compile(r'<img\b[^>]*>')


def attributes(tag): return {name: html.unescape(value) for name, value in re.findall(r'\b([\w-]+)="([^"]*)"', tag)}


def content(source, folder):
    "Return the PNG of an address: a data URL, or a file of the site; None for anything else"
    if source.startswith('data:image/png;base64,'): return base64.b64decode(source.partition(',')[2])
    path = folder/source
    return path.read_bytes() if '://' not in source and source.endswith('.png') and path.is_file() else None


def both_themes(page, folder):
    "Return the HTML of a page with its PNGs as files in folder/figures: two of each that the dark theme has of its own, one loads"
    def files(match):
        about = attributes(match[0])
        if 'img-fluid' not in about.get('class', '') or (png := content(about.get('src', ''), folder)) is None: return match[0]  # a figure with controls keeps its own
        width, height = open_png(png).size
        light, known = written(png, folder), boxes_of(png) is not None

        def tag(source, kind):
            names = f'{about.get("class", "")} figure-{kind}' + ' figure-wide'*(.7*width > PHONE)
            return f'<img src="{source}" alt="{html.escape(about.get("alt", ""))}" width="{width}" height="{height}" loading="lazy" class="{names.strip()}" style="--natural: {width}px">'
        return tag(light, 'light') + tag(written(dark(png), folder), 'dark') if known else tag(light, 'paper')
    return IMAGE.sub(files, page)


def written(png, folder):
    "Write a PNG under a name made from its content; return its address"
    name = f'figures/{hashlib.sha256(png).hexdigest()[:16]}.png'
    (folder/'figures').mkdir(exist_ok=True)
    (folder/name).write_bytes(png)
    return name


def in_both_themes(folder):
    "Rewrite every page of the built site"
    for path in sorted(Path(folder).glob('*.html')):
        page = path.read_text(encoding='utf-8')
        if (now := both_themes(page, Path(folder))) != page: path.write_text(now, encoding='utf-8')
