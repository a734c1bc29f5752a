"""A time-stamping authority (RFC 3161) over HTTP: OpenSSL answers. Arguments: port, folder with tsa.cnf."""

import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer

port, folder = int(sys.argv[1]), sys.argv[2]


class Authority(BaseHTTPRequestHandler):
    def do_POST(self):
        question = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"] != "application/timestamp-query":
            return self.send_error(415)
        with tempfile.NamedTemporaryFile() as query:
            query.write(question)
            query.flush()
            answer = subprocess.run(
                ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", query.name],
                cwd=folder, check=True, capture_output=True).stdout
        self.send_response(200)
        self.send_header("Content-Type", "application/timestamp-reply")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", port), Authority).serve_forever()
