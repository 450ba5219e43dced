"""Admission: the checks of a request before it runs, in this order, with one kind of reply.

| check | status | decided by |
|---|---|---|
| valid HTTP, head size, head time | 400, 431, 408 | `connections.Connection` |
| queries: room in the queue of the load shedder | 429 | `Admission.check_load` |
| host and origin | 400, 403 | `Admission.admit` |
| key, tenant, scope of the route | 401, 403 | `access.access.Access` |
| quotas of the caller: requests, requests in progress, tokens | 429 | `RateLimit` |
| body: size, time, rate, bytes of all bodies together | 413, 408, 503 | `LimitedBody` |
| requests in progress, uploads counted apart | 503 | `Quota` |
| queries: a place before the deadline | 429, 504 | `LoadShedder.enter` |

Refusals that cost least come first. A small body has to be complete before its request takes a
place, so that a slow sender holds none.
"""
