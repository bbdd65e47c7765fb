"""The demo page's door: `python demo.py`, and the `app_file` of a Hugging Face Space."""

import sys

from onelook.demo.command import main

if __name__ == "__main__":
    sys.exit(main())
