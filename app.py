"""Virtual Neuron Explorer: ``streamlit run app.py``, or serve ``explorer.ui.web:app``."""

from explorer.ui import frame

frame.run()
