"""Network parts that more than one backend uses: attention, norms, sparse grids, flow sampling."""
