"""Retrieval-augmented generation with LangChain: embed texts, retrieve those that match a question, and generate an answer from them.

    pip install langchain-openai
    tealight pull smollm2-135m-instruct
    tealight serve                 # in another terminal
    python examples/langchain_search.py "How long is the warranty on a lantern?"

TEALIGHT_URL (default http://127.0.0.1:9000) is the URL of the server or function, TEALIGHT_API_KEY its API key, if it has one.
"""

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import APIConnectionError, APIStatusError

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")
SERVER = {"base_url": f"{URL}/v1", "api_key": os.environ.get("TEALIGHT_API_KEY", "none")}
TEXTS = [
    "Customers may return a lamp within 45 days, with the receipt.",
    "Our shop in Oslo is open from nine to five, except on Sundays.",
    "A beeswax candle burns for eleven hours.",
    "Orders above 80 euros are sent for free.",
    "The warranty on all lanterns is six years.",
]
# A model of this size works best without a system message and with the question last.
PROMPT = ChatPromptTemplate.from_messages([("human", 'Text: "{context}"\nAnswer from the text: {question}')])


def main():
    question = " ".join(sys.argv[1:]) or sys.exit(__doc__)
    # By default, LangChain sends token ids of OpenAI's tokenizer, which have other meanings in this model's vocabulary. With
    # check_embedding_ctx_length=False it sends text, and documents longer than the model's limit need a text splitter.
    embeddings = OpenAIEmbeddings(model="all-MiniLM-L6-v2", check_embedding_ctx_length=False, **SERVER)
    llm = ChatOpenAI(model="smollm2-135m-instruct", temperature=0, max_completion_tokens=60, **SERVER)

    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    found = store.as_retriever(search_kwargs={"k": 2}).invoke(question)
    for document in found:
        print("found:", document.page_content)

    # A second text in the prompt confuses a model of this size.
    answer = (PROMPT | llm | StrOutputParser()).invoke({"context": found[0].page_content, "question": question})
    print("answer:", answer.strip())


if __name__ == "__main__":
    try:
        main()
    except APIConnectionError as error:
        sys.exit(f"no response from {URL}: is `tealight serve` running? ({error.__cause__ or error})")
    except APIStatusError as error:
        sys.exit(f"{error.status_code} {error.message}")
