"""The desk: tokens over HTTP for neighbours, pages for creators who connect, and pages for operators.

A process of its own, `evertoken desk`. Every request is read and checked in `web` and `guard`, and answered by `api`,
`connecting`, `operating` or `health`, which `app` puts together.
"""
