"""The REST door: `uvicorn api:app`, set up by the environment (docs/service.md).

`onelook serve` is the same with command-line flags. Run one server process: it keeps jobs in its
memory, and starts a worker process for each device itself.
"""

import os

from onelook.service.app import create_app
from onelook.service.settings import read_settings

app = create_app(read_settings(os.environ))
