"""A page over the runs in a folder: `prunebench dashboard`. No torch.

Everything the page shows comes as JSON documents, each with a key (`runs`, `curves/<run>`, ...): `documents` makes
them from the files of a run, `store` keeps them as long as those files do not change, `serve` sends them while runs go
on, and `export` writes all of them into one file with the page. The page itself (page/) is plain HTML, CSS and
JavaScript with Apache ECharts for the plots, and does not know whether its documents are sent or written.
"""
