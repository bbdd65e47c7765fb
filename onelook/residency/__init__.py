"""Which network is on the device when: declared by a backend, decided and carried out here.

Network and Stage (`networks`, `plan`) are what a backend declares, Residency (`manager`) is what it
asks. `plan` is arithmetic and needs no torch, `device` is all that touches a GPU, `image`,
`transfer`, `copies` and `blocks` carry tensors there, `prediction` keeps the figures.
"""
