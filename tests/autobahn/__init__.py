"""The Autobahn test suite as a gate: the server and both styles of the client, judged case by case.

``python -m tests.autobahn.run --help`` shows how to run it; ``tests/test_autobahn.py`` is the same gate as a test.
"""
