"""`python -m quarterdeck.stack` with stand-ins for the services: the servers, signals and files are the real ones.

`STAND_IN_FAULT` makes one misbehave: `deaf:NAME` ignores SIGTERM, `broken:NAME` refuses its configuration.
"""

import os
import sys
from dataclasses import replace
from typing import Any

from quarterdeck.stack import local
from quarterdeck.stack.__main__ import main
from quarterdeck.stack.processes import ProcessSpec
from quarterdeck.stack.services import ServiceSpecs

STAND_IN = """
import http.server, os, signal, sys
fault, address = sys.argv[1:]
if fault == "broken":
    print("QUARTERDECK_SOMETHING: is wrong")
    sys.exit(2)
signal.signal(signal.SIGTERM, signal.SIG_IGN if fault == "deaf" else lambda *_: os._exit(0))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
host, port = address.split(":")
http.server.HTTPServer((host, int(port)), Health).serve_forever()
"""


class StandIns(ServiceSpecs):
    def _spec(self, kind: str, *module: str, **details: Any) -> ProcessSpec:
        spec = super()._spec(kind, *module, **details)
        if kind == "migrate":
            return replace(spec, command=(sys.executable, "-S", "-c", ""))
        fault, _, name = os.environ.get("STAND_IN_FAULT", "").partition(":")
        address = spec.health_address or f"127.0.0.1:{module[-1]}"
        arguments = (fault if name == spec.name else "", address)
        return replace(spec, command=(sys.executable, "-S", "-c", STAND_IN, *arguments))


if __name__ == "__main__":
    vars(local)["ServiceSpecs"] = StandIns
    sys.exit(main())
