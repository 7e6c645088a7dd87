"""Reads settings.ini, so that every fact about the package stands in one place."""
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).resolve().parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


def lines(key): return [line.strip() for line in cfg.get(key, '').splitlines() if line.strip()]


def long_description():
    "README.md with the addresses of the files that it links to: an index of packages shows it without them"
    text = re.sub(r'<!--.*?-->\s*', '', (here/'README.md').read_text(encoding='utf-8'), flags=re.S)
    text = re.sub(r'(!\[[^\]]*\]\()(?!https?:|#)', rf"\1{cfg['git_url']}/raw/{cfg['branch']}/", text)
    return re.sub(r'(\]\()(?!https?:|#)', rf"\1{cfg['git_url']}/blob/{cfg['branch']}/", text)


# nbdev looks for the site's renderer, .ci/shown.py, by its name: a checkout that is installed as such has it, the wheel does not
tools = ['shown'] if 'editable_wheel' in sys.argv else []

extras = 'export', 'hub'
licenses = {'apache2': 'Apache-2.0'}
audiences = {'Education': 'Intended Audience :: Education', 'Developers': 'Intended Audience :: Developers'}
statuses = {'3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=long_description(),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    license=licenses[cfg['license']],
    keywords=cfg['keywords'].split(),
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl'], 'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    classifiers=[
        f"Development Status :: {statuses[cfg['status']]}",
        audiences[cfg['audience']],
        f"Natural Language :: {cfg['language']}",
        *(f'Programming Language :: Python :: {version}' for version in cfg['pythons'].split()),
        'Typing :: Typed',
    ],
    python_requires=f">={cfg['min_python']}",
    install_requires=lines('requirements'),
    extras_require={name: lines(f'{name}_requirements') for name in extras} | {'dev': sum((lines(f'{name}_requirements') for name in (*extras, 'dev')), [])},
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},  # nbdev links names to their pages by it
    # The recorded runs live in results/ at the top of the repository and travel inside the package.
    packages=['cifar_resnet', 'cifar_resnet.results'],
    package_dir={'cifar_resnet': 'cifar_resnet', 'cifar_resnet.results': 'results'} | dict.fromkeys(['']*bool(tools), '.ci'),
    py_modules=tools,
    package_data={'cifar_resnet': ['py.typed'], 'cifar_resnet.results': ['*.json', '*/*.json']},
    zip_safe=False,
)
