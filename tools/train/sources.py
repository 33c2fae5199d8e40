"""The Debian packages that the training text comes from, with the licences their copyright files give.

Every package is in Debian 12's main archive. `include` are globs below the unpacked package; only English pages.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    package: str
    licence: str
    include: tuple[str, ...]


def doc(package: str, *globs: str) -> tuple[str, ...]:
    return tuple(f"usr/share/doc/{package}/{glob}" for glob in globs)


ANY_PAGE = ("usr/share/**/*.html",)

SOURCES = [
    Source("anarchism", "GPL-2", doc("anarchism", "html/*.html")),
    Source("apache2-doc", "Apache-2.0", ("usr/share/doc/apache2-doc/manual/en/**/*.html",)),
    Source("aptitude-doc-en", "GPL-2+", doc("aptitude", "html/en/*.html")),
    Source("bind9-doc", "MPL-2.0", doc("bind9-doc", "arm/*.html")),
    Source("cmake-doc", "BSD-3-Clause", ("usr/share/doc/**/html/manual/*.html", "usr/share/doc/**/html/guide/**/*.html",
                                         "usr/share/doc/**/html/command/*.html", "usr/share/doc/**/html/variable/*.html",
                                         "usr/share/doc/**/html/prop_*/*.html", "usr/share/doc/**/html/release/*.html",
                                         "usr/share/doc/**/html/policy/*.html", "usr/share/doc/**/html/module/*.html")),
    Source("debian-faq", "GPL-2+", ("usr/share/doc/debian/FAQ/*.en.html",)),
    Source("debian-handbook", "GPL-2+ or CC-BY-SA-3.0", doc("debian-handbook", "html/en-US/*.html")),
    Source("debian-history", "GPL-2+", doc("debian-history", "docs/*.en.html")),
    Source("debian-policy", "GPL-2+", doc("debian-policy", "policy.html/*.html")),
    Source("debian-reference-en", "GPL-2+", ("usr/share/debian-reference/*.en.html",)),
    Source("developers-reference", "GPL-2+", ("usr/share/developers-reference/*.html",)),
    Source("erlang-doc", "Apache-2.0", ("usr/share/doc/erlang-doc/**/*.html",)),
    Source("exim4-doc-html", "GPL-2+", doc("exim4-doc-html", "**/*.html")),
    Source("ghc-doc", "BSD-3-Clause", doc("ghc-doc", "html/users_guide/**/*.html", "html/haddock/**/*.html")),
    Source("git-doc", "GPL-2+", doc("git-doc", "**/*.html")),
    Source("gnome-user-docs", "CC-BY-SA-3.0", ("usr/share/help/C/**/*.page",)),
    Source("harden-doc", "GPL-2", doc("harden-doc", "html/en-US/*.html")),
    Source("kicad-doc-en", "GPL-3+ or CC-BY-3.0", ("usr/share/doc/kicad/help/en/*.html",)),
    Source("libboost1.81-doc", "BSL-1.0", doc("libboost1.81-doc", "doc/html/**/*.html", "doc/html/*.html")),
    Source("libreoffice-help-en-us", "MPL-2.0", ("usr/share/libreoffice/help/en-US/text/**/*.html",)),
    Source("linux-doc-6.1", "GPL-2", doc("linux-doc-6.1", "html/**/*.html")),
    Source("octave-doc", "GPL-3+", ("usr/share/doc/**/octave.html/*.html", "usr/share/doc/octave*/**/*.html")),
    Source("perl-doc", "GPL-1+ or Artistic", ("usr/share/perl/**/pod/*.pod",)),
    Source("postfix-doc", "IPL-1.0 or EPL-2.0", doc("postfix", "html/*.html", "html/*.html.gz")),
    Source("postgresql-doc-15", "PostgreSQL", doc("postgresql-doc-15", "html/*.html")),
    Source("python-django-doc", "BSD-3-Clause", ("usr/share/doc/python-django-doc/html/**/*.html",)),
    Source("python-scipy-doc", "BSD-3-Clause", ("usr/share/doc/python-scipy-doc/html/**/*.html",)),
    Source("python-sqlalchemy-doc", "MIT", ("usr/share/doc/python-sqlalchemy-doc/html/**/*.html",)),
    Source("python3.11-doc", "PSF-2.0", doc("python3.11", "html/**/*.html")),
    Source("qtbase5-doc-html", "GFDL-1.3 (no invariant sections)", ("usr/share/qt5/doc/**/*.html",)),
    Source("qtcreator-doc", "GFDL-1.3 (no invariant sections)", ("usr/share/qtcreator/doc/**/*.html",)),
    Source("r-doc-html", "GPL-2", ("usr/share/R/doc/manual/*.html", "usr/share/doc/r-doc-html/**/*.html")),
    Source("rust-doc", "MIT or Apache-2.0", doc("rust-doc", *(f"html/{book}/**/*.html" for book in (
        "book", "rust-by-example", "reference", "edition-guide", "nomicon", "embedded-book", "cargo", "rustc", "rustdoc",
        "unstable-book", "error_codes", "std", "alloc")))),
    Source("sqlite3-doc", "public domain", ("usr/share/doc/sqlite3/**/*.html", "usr/share/doc/sqlite3-doc/**/*.html")),
    Source("zsh-doc", "Zsh (MIT-like)", ("usr/share/doc/zsh*/**/*.html",)),
    Source("llvm-14-doc", "Apache-2.0 with LLVM exception", ANY_PAGE),
    Source("clang-14-doc", "Apache-2.0 with LLVM exception", ANY_PAGE),
    Source("libstdc++-12-doc", "GPL-3+ or GFDL-1.3", ANY_PAGE),
    Source("tomcat10-docs", "Apache-2.0", ANY_PAGE),
    Source("ant-doc", "Apache-2.0", ANY_PAGE),
    Source("grass-doc", "GPL-2+", ANY_PAGE),
    Source("python-pandas-doc", "BSD-3-Clause", ANY_PAGE),
    Source("python-sympy-doc", "BSD-3-Clause", ANY_PAGE),
    Source("sphinx-doc", "BSD-2-Clause", ANY_PAGE),
    Source("nova-doc", "Apache-2.0", ANY_PAGE),
    Source("neutron-doc", "Apache-2.0", ANY_PAGE),
    Source("keystone-doc", "Apache-2.0", ANY_PAGE),
    Source("cinder-doc", "Apache-2.0", ANY_PAGE),
    Source("glance-doc", "Apache-2.0", ANY_PAGE),
    Source("swift-doc", "Apache-2.0", ANY_PAGE),
    Source("ironic-doc", "Apache-2.0", ANY_PAGE),
    Source("gimp-help-en", "GFDL-1.2+ (no invariant sections)", ANY_PAGE),
    Source("libglib2.0-doc", "LGPL-2.1+", ANY_PAGE),
    Source("libgtk-4-doc", "LGPL-2+", ANY_PAGE),
    Source("racket-doc", "MIT or Apache-2.0", ANY_PAGE),
    Source("swi-prolog-doc", "BSD-2-Clause and GPL-2+", ANY_PAGE),
    Source("python-astropy-doc", "BSD-3-Clause", ANY_PAGE),
    Source("python-sklearn-doc", "BSD-3-Clause", ANY_PAGE),
    Source("proftpd-doc", "GPL-2+", ANY_PAGE),
    Source("slurm-wlm-doc", "GPL-2+", ANY_PAGE),
    Source("postgis-doc", "CC-BY-SA-3.0", ANY_PAGE),
    Source("xen-doc", "GPL-2", ANY_PAGE),
    Source("buildbot-doc", "GPL-2", ANY_PAGE),
    Source("designate-doc", "Apache-2.0", ANY_PAGE),
    Source("heat-doc", "Apache-2.0", ANY_PAGE),
    Source("octavia-doc", "Apache-2.0", ANY_PAGE),
    Source("manila-doc", "Apache-2.0", ANY_PAGE),
    Source("libvirt-doc", "LGPL-2.1+", ANY_PAGE),
    Source("ganeti-doc", "BSD-2-Clause", ANY_PAGE),
    Source("systemtap-doc", "GPL-2+", ANY_PAGE),
    Source("fp-docs-3.2.2", "GPL-2+", ANY_PAGE),
    Source("maint-guide", "GPL-2+", ANY_PAGE),
    Source("debmake-doc", "Expat", ANY_PAGE),
    Source("live-manual-html", "GPL-3+", ("usr/share/doc/live-manual/**/*.en.html",)),
]
