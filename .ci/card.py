"""Draw nbs/card.png, which a link to the site shows in a chat or a feed: title and line of settings.ini, and the first picture of the home page.

usage: python .ci/card.py     after a change of either
"""
import io
import textwrap

import matplotlib.pyplot as plt
from nbdev.config import get_config
from PIL import Image

ROOT = get_config().config_path
WIDTH, HEIGHT = 1200, 630


def draw():
    "Return the card as PNG"
    cfg = get_config()
    picture = Image.open(ROOT/'nbs'/'images'/'first_page.png').convert('RGB')
    fig = plt.figure(figsize=(WIDTH/100, HEIGHT/100), dpi=100, facecolor='#1a5fb4')
    fig.text(.05, .88, cfg.title, color='white', fontsize=37, fontweight='bold', va='top', family='DejaVu Sans Mono')
    fig.text(.05, .68, textwrap.fill(cfg.description.partition(':')[0], 24), color='white', fontsize=22, va='top', linespacing=1.4)
    fig.text(.05, .1, 'a course and a package in one', color='#ffbe6f', fontsize=17)
    side = .72*HEIGHT
    ax = fig.add_axes([1 - .04 - side*picture.width/picture.height/WIDTH, .14, side*picture.width/picture.height/WIDTH, .72])
    ax.imshow(picture, interpolation='lanczos')
    ax.axis('off')
    held = io.BytesIO()
    fig.savefig(held, format='png')
    plt.close(fig)
    small = io.BytesIO()
    Image.open(held).convert('RGB').quantize(128).save(small, 'PNG', optimize=True)
    return small.getvalue()


if __name__ == '__main__': (ROOT/'nbs'/'card.png').write_bytes(draw())
