from explorer.ui import frame

frame.guard()
import streamlit as st
st.write("soon")
