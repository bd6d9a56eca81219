"""moto's S3, answering one request after another, so that conditional writes are decided as S3 decides them.

Prints its port. Threads would let two writers pass moto's check before either has written.
"""

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the log is read for what went wrong."""


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()
